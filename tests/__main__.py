"""Runs all tests as four pytest processes side by side: most of them wait for servers, not for the machine.

    python -m tests [PYTEST ARGUMENTS]

With arguments it is one ordinary run of pytest. What a part says is printed when it has ended, those that
failed last. A part that does not end says where it hangs, and is ended.

Four parts on two cores are a busy machine. A test or two that failed on it are run again when it is quiet;
one that passes then is told of as UNSTEADY at the very end, with what it said the first time, and is a
defect like any other, to be mended; but it does not stop a change that has nothing to do with it. What the
chaos harness finds, and more than two failures, get no second look.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

#: The parts; each starts servers of its own, if it needs some.
PARTS = (["tests/unit"], ["tests/integration"], ["tests/acceptance"], ["tests/chaos"])
#: Twice as long as all takes on two busy cores.
LIMIT_SECONDS = float(os.environ.get("PILLOWD_TEST_LIMIT_SECONDS") or 25 * 60)
NEWS_SECONDS = 60.0
#: What makes a process say where it is: every greenlet (`tests.patched`), then every thread (faulthandler).
LAST_WORDS = (signal.SIGUSR2, signal.SIGABRT, signal.SIGKILL)
LAST_WORD_SECONDS = 10.0

#: So many failures of all parts together are looked at twice, except those of one part.
UNSTEADY_TESTS = 2
NO_SECOND_LOOK = "tests/chaos"
#: What pytest ends with when tests failed, and nothing else was wrong.
TESTS_FAILED = 1

COMMAND = [sys.executable, "-m", "pytest", "-q"]


class Part:
    """One process of pytest, the leader of all that it starts.

    Args:
        paths: what it tests.
        more: arguments for pytest.
    """

    def __init__(self, paths: list[str], *more: str) -> None:
        self.paths = paths
        self.name = " ".join(paths)
        self._cache = Path(".pytest_cache", self.name.replace("/", "-")).absolute()
        self._said: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end of the block
        self._process = subprocess.Popen(
            [*COMMAND, "-o", f"cache_dir={self._cache}", *paths, *more],
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    @property
    def failed(self) -> bool:
        """Whether it did anything but pass: a process that a signal ended has a code below zero."""
        return self._process.returncode != 0

    @cached_property
    def failures(self) -> list[str]:
        """The tests that failed, where that is all that went wrong."""
        if self._process.returncode != TESTS_FAILED:
            return []
        return list(json.loads((self._cache / "v/cache/lastfailed").read_bytes()))

    def said(self) -> bytes:
        """All that it has printed so far; read without moving the place where it writes."""
        file = self._said.fileno()
        return os.pread(file, os.fstat(file).st_size, 0)

    def hang_up(self) -> None:
        """Has it say where it is, and ends it."""
        for number in LAST_WORDS:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORD_SECONDS)

    def verdict(self) -> str:
        """How it ended, in one line; pytest has said how long it took."""
        return f"{self.name}: " + (f"FAILED with {self._process.returncode}" if self.failed else "passed")


def main(arguments: list[str]) -> int:
    """Returns 0 if everything has passed."""
    if arguments:
        return subprocess.call([*COMMAND, *arguments])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and so in good order
    with ExitStack() as processes, ExitStack() as last:
        parts = [processes.enter_context(Part(paths, "--cache-clear")) for paths in PARTS]
        again: dict[Part, Part] = {}
        last.callback(_show, parts, again)
        _await(parts)
        failed = [part for part in parts if part.failed]
        if not worth_a_second_look(failed):
            return int(bool(failed))
        _tell("", "Once more, since the machine was busy:")
        again |= {part: processes.enter_context(Part(part.paths, "--last-failed")) for part in failed}
        _await(list(again.values()))
        return int(any(part.failed for part in again.values()))


def worth_a_second_look(failed: list[Part]) -> bool:
    """Whether what failed may have failed because the machine was busy."""
    if any(part.name == NO_SECOND_LOOK or not part.failures for part in failed):
        return False
    return 0 < sum(len(part.failures) for part in failed) <= UNSTEADY_TESTS


def _show(parts: list[Part], again: Mapping[Part, Part]) -> None:
    for part in [*sorted(parts, key=lambda part: part.failed), *again.values()]:
        _tell("", f"{part.name}:")
        sys.stdout.buffer.write(part.said())
    _tell("", *(part.verdict() for part in parts))
    for first, second in again.items():
        word = "FAILED twice" if second.failed else "UNSTEADY, passed when it was run again"
        _tell(*(f"{word}: {test}" for test in first.failures))


def _await(parts: list[Part]) -> None:
    """Waits for all parts, and tells meanwhile how far they are."""
    running, until = list(parts), time.monotonic() + LIMIT_SECONDS
    news_at = time.monotonic() + NEWS_SECONDS
    while running:
        time.sleep(0.2)
        if time.monotonic() > until:
            for part in running:
                _tell(f"{part.name}: not over after {LIMIT_SECONDS:.0f} s")
                part.hang_up()
        if time.monotonic() > news_at:
            news_at += NEWS_SECONDS
            _tell(*(f"{part.name}: {_last_line(part)}" for part in running))
        for part in [part for part in running if part.ended]:
            running.remove(part)
            _tell(part.verdict())


def _last_line(part: Part) -> str:
    lines = part.said().decode(errors="replace").splitlines()
    return lines[-1] if lines else "starting"


def _tell(*lines: str) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
