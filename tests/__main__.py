"""Runs all tests as pytest processes, three side by side: most of them wait for servers, not for the machine.

    python -m tests [PYTEST ARGUMENTS]

With arguments it is one ordinary run of pytest. What a part says is printed when it has ended, those that
failed last. A part that does not end says where it hangs, and is ended.

Three parts on two cores are a busy machine. A test or two that failed on it are run again when it is quiet;
one that passes then is told of as UNSTEADY at the very end, with what it said the first time, and is a
defect like any other, to be mended; but it does not stop a change that has nothing to do with it. What the
chaos harness finds, and more than two failures, get no second look.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import BinaryIO, Self

#: The parts, those that take longest first; each starts servers of its own, if it needs some.
PARTS = (
    "tests/chaos",
    "tests/acceptance/test_[q-z]*.py",
    "tests/acceptance/test_[a-p]*.py",
    "tests/integration",
    "tests/unit",
    "tests/tooling",
)
#: So many run at once: a fourth would wait for the other three, and make them late.
SIDE_BY_SIDE = 3
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
        name: what it tests: a folder, or a pattern of files.
        more: arguments for pytest.
    """

    def __init__(self, name: str, *more: str) -> None:
        self.name = name
        self._more = more
        self._cache = Path(".pytest_cache", re.sub(r"\W+", "-", name)).absolute()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        paths = sorted(glob(self.name)) or [self.name]  # without one pytest would run all there is
        self._said: BinaryIO = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [*COMMAND, "-o", f"cache_dir={self._cache}", *paths, *self._more],
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._code is not None

    @property
    def failed(self) -> bool:
        """Whether it did anything but pass: a process that a signal ended has a code below zero."""
        return self._code != 0

    @property
    def _code(self) -> int | None:
        return self._process.poll() if self._process else None

    @cached_property
    def failures(self) -> list[str]:
        """The tests that failed, where that is all that went wrong."""
        if self._code != TESTS_FAILED:
            return []
        return list(json.loads((self._cache / "v/cache/lastfailed").read_bytes()))

    def said(self) -> bytes:
        """All that it has printed so far; read without moving the place where it writes."""
        if not self._process:
            return b""
        file = self._said.fileno()
        return os.pread(file, os.fstat(file).st_size, 0)

    def hang_up(self) -> None:
        """Has it say where it is, and ends it."""
        assert self._process
        for number in LAST_WORDS:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORD_SECONDS)

    def verdict(self) -> str:
        """How it ended, in one line; pytest has said how long it took."""
        if not self.ended:
            return f"{self.name}: NOT RUN to its end"
        return f"{self.name}: " + (f"FAILED with {self._code}" if self.failed else "passed")


def main(arguments: list[str]) -> int:
    """Returns 0 if everything has passed."""
    if arguments:
        return subprocess.call([*COMMAND, *arguments])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and so in good order
    parts = [Part(name, "--cache-clear") for name in PARTS]
    again: dict[Part, Part] = {}
    with ExitStack() as processes, ExitStack() as last:
        last.callback(_show, parts, again)
        _run(parts, processes)
        failed = [part for part in parts if part.failed]
        if not worth_a_second_look(failed):
            return int(bool(failed))
        _tell("", "Once more, since the machine was busy:")
        again |= {part: Part(part.name, "--last-failed") for part in failed}
        _run(list(again.values()), processes)
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
        _tell(*(f"{_word(second)}: {test}" for test in first.failures))


def _word(second: Part) -> str:
    if not second.ended:
        return "FAILED, and not run again to the end"
    return "FAILED twice" if second.failed else "UNSTEADY, passed when it was run again"


def _run(parts: list[Part], processes: ExitStack) -> None:
    """Runs the parts, or as many as there is time for, and tells meanwhile how far they are."""
    waiting, running = list(parts), list[Part]()
    until, news_at = time.monotonic() + LIMIT_SECONDS, time.monotonic() + NEWS_SECONDS
    while waiting or running:
        while waiting and len(running) < SIDE_BY_SIDE:
            running.append(processes.enter_context(waiting.pop(0)))
        time.sleep(0.2)
        if time.monotonic() > until:
            waiting.clear()
            _hang_up(running)
        if time.monotonic() > news_at:
            news_at += NEWS_SECONDS
            _tell(*(f"{part.name}: {_last_line(part)}" for part in running))
        for part in [part for part in running if part.ended]:
            running.remove(part)
            _tell(part.verdict())


def _hang_up(running: list[Part]) -> None:
    for part in running:
        _tell(f"{part.name}: not over after {LIMIT_SECONDS:.0f} s")
        part.hang_up()


def _last_line(part: Part) -> str:
    lines = part.said().decode(errors="replace").splitlines()
    return lines[-1] if lines else "starting"


def _tell(*lines: str) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
