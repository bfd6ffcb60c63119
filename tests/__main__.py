"""Runs all tests as four pytest processes side by side: most of them wait for servers, not for the machine.

    python -m tests [PYTEST ARGUMENTS]

With arguments it is one ordinary run of pytest. What a part says is printed when it has ended, those that
failed last. A part that does not end says where it hangs, and is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from typing import BinaryIO, Self

#: The parts; each starts servers of its own, if it needs some.
PARTS = (["tests/unit"], ["tests/integration"], ["tests/acceptance"], ["tests/chaos"])
#: Twice as long as all takes on two busy cores.
LIMIT_SECONDS = float(os.environ.get("PILLOWD_TEST_LIMIT_SECONDS") or 25 * 60)
NEWS_SECONDS = 60.0
#: What makes a process say where it is: every greenlet (`tests.patched`), then every thread (faulthandler).
LAST_WORDS = (signal.SIGUSR2, signal.SIGABRT, signal.SIGKILL)
LAST_WORD_SECONDS = 10.0

COMMAND = [sys.executable, "-m", "pytest", "-q"]


class Part:
    """One process of pytest, the leader of all that it starts.

    Args:
        paths: what it tests.
    """

    def __init__(self, paths: list[str]) -> None:
        self.name = " ".join(paths)
        self._said: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end of the block
        self._process = subprocess.Popen(
            [*COMMAND, *paths], stdout=self._said, stderr=subprocess.STDOUT, start_new_session=True
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
    with ExitStack() as stack:
        parts = [stack.enter_context(Part(paths)) for paths in PARTS]
        stack.callback(_show, parts)
        _await(parts, time.monotonic() + LIMIT_SECONDS)
        return int(any(part.failed for part in parts))


def _show(parts: list[Part]) -> None:
    for part in sorted(parts, key=lambda part: part.failed):
        _tell("", f"{part.name}:")
        sys.stdout.buffer.write(part.said())
    _tell("", *(part.verdict() for part in parts))


def _await(parts: list[Part], until: float) -> None:
    """Waits for all parts, and tells meanwhile how far they are."""
    running = list(parts)
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
