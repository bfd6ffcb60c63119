"""pillowd as a child process of a demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import StoreError
from daemon.http.client import HttpClient

ROOT = Path(__file__).parents[2]
#: How long one step may take: a busy machine needs a few seconds.
STEP_SECONDS = 120.0


class DemoError(Exception):
    """A step of the demo failed."""


class Daemon:
    """Starts, kills and stops a daemon, and asks it.

    Args:
        folder: for its log; its configuration puts its admin socket there.
        config: its configuration.
        environment: the variables that the configuration names, in addition to our own environment.

    Attributes:
        environment: the whole environment.
    """

    def __init__(self, folder: Path, config: Path, environment: Mapping[str, str]) -> None:
        self.environment = os.environ | dict(environment)
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process.

        Raises:
            DemoError: it was not started.
        """
        return self._get_process().pid

    @property
    def log(self) -> Path:
        """The file with its log."""
        return self._folder / "pillowd.log"

    def start(self) -> None:
        """Start it, with all pillows."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "daemon", "run", "--all", "--config", str(self._config)],
                env=self.environment,
                stderr=log,
                stdout=log,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C at a terminal is for us: we stop it in order
            )

    def wait(self, timeout: float) -> int:
        """Return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._get_process().wait(timeout=timeout)

    def expect_running(self, what: str) -> None:
        """Check that it runs.

        Args:
            what: the step, for the error.

        Raises:
            DemoError: it has ended.
        """
        code = self._get_process().poll()
        if code is not None:
            raise DemoError(f"pillowd ended with exit code {code} while {what}; see {self.log}")

    def kill(self) -> None:
        """Kill it as a crash does."""
        process = self._get_process()
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stop it in order, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STEP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def statuses(self) -> list[dict[str, Any]]:
        """Return the statuses of its pillows; empty while it starts."""
        client = HttpClient(self._folder / "admin.sock", timeout_seconds=5)
        try:
            found: list[dict[str, Any]] = client.call("list_pillows")["pillows"]
        except StoreError:
            return []
        return found

    def _get_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DemoError("pillowd was not started")
        return self._process
