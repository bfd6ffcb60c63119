"""One worker: a process of pytest, the leader of all that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from tests.runner.journal import Journal
from tests.servers.process import die_with_parent

#: What makes a process say where it is: every greenlet (`tests.patched`), then every thread (faulthandler).
LAST_WORDS = (signal.SIGUSR2, signal.SIGABRT, signal.SIGKILL)
LAST_WORD_SECONDS = 10.0
#: What pytest ends with when tests failed and nothing else was wrong, or when it found none.
WELL_ENDED = (0, 1, 5)


class Worker:
    """Run pytest in a process group of its own; it does not outlive this process.

    Args:
        folder: of the run.
        number: differs from those of other workers of the run.
        paths: files, folders or tests.
        environ: what is added to the environment.
        arguments: more arguments for pytest.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        paths: list[str],
        *,
        environ: dict[str, str] | None = None,
        arguments: tuple[str, ...] = ("-q",),
    ) -> None:
        self.journal = Journal(folder / f"journal-{number}")
        self._arguments = [*arguments, "-p", "no:cacheprovider", "-p", "tests.runner.plugin", *paths]
        self._environ = {
            **os.environ,
            **(environ or {}),
            "PILLOWD_TEST_RUN": str(folder),
            "PILLOWD_TEST_JOURNAL": str(self.journal.path),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._output: BinaryIO = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *self._arguments],
            env=self._environ,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it only calls prctl
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()

    @property
    def code(self) -> int | None:
        """The exit code, below zero for a signal; None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def is_broken(self) -> bool:
        """Whether something else went wrong than a test."""
        return self.code not in WELL_ENDED or (self.code == 1 and not self.journal.tests)

    def read_output(self) -> str:
        """Return what pytest has printed so far."""
        file = self._output.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def hang_up(self) -> None:
        """Have the process say where it is, and end it."""
        assert self._process
        for number in LAST_WORDS:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORD_SECONDS)
