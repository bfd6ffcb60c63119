"""The real daemon as a child process: started, signalled, asked, and listened to as systemd does."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Self

import yaml

from daemon.cli.main import run_command
from daemon.http.client import HttpClient
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PILLOWD = (sys.executable, str(ROOT / "pillowd.py"))


def couchdb(url: str, login: tuple[str, str] | None) -> dict[str, Any]:
    """The connection to a CouchDB server, as a configuration has it."""
    auth = {"type": "basic", "username": login[0], "password": login[1]} if login else None
    return {"type": "couchdb", "url": url} | ({"auth": auth} if auth else {})


class Manager:
    """A service manager's notify socket.

    Attributes:
        messages: every line so far, as (monotonic seconds, line).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def lines(self) -> list[str]:
        """Everything that was told so far."""
        while True:
            try:
                message = self._socket.recv(4096).decode()
            except BlockingIOError:
                return [line for _, line in self.messages]
            self.messages += [(time.monotonic(), line) for line in message.splitlines()]

    def told(self, line: str) -> bool:
        return line in self.lines()

    def close(self) -> None:
        self._socket.close()


class Pillowd:
    """A configuration in a folder, its commands, and its daemon.

    Args:
        folder: an empty folder.
        pillows: name -> settings.
        connections: name -> settings.
        daemon: settings of the daemon, in addition to its folders.
        sections: further sections.

    Attributes:
        program: what is started.
        settings: the configuration.
    """

    program: Sequence[str] = PILLOWD

    def __init__(
        self,
        folder: Path,
        *,
        pillows: Mapping[str, Any],
        connections: Mapping[str, Any],
        daemon: Mapping[str, Any] | None = None,
        sections: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.config = folder / "pillowd.yaml"
        self.log = folder / "pillowd.log"
        self.manager = Manager(folder / "notify")
        self.environ = os.environ | {"NOTIFY_SOCKET": str(self.manager.path)}
        self._child: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, Any] = {
            "version": 1,
            "daemon": {
                "state_dir": str(folder / "state"),
                "admin": {"listen": f"unix:{folder}/admin.sock"},
                "http": {"listen": None},
                **(daemon or {}),
            },
            "connections": dict(connections),
            "pillows": dict(pillows),
            **(sections or {}),
        }
        self.config.write_text(yaml.safe_dump(self.settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self.manager.close()

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "not started"
        return self._child

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None, ready: bool = True) -> Self:
        """Starts the daemon; waits for READY unless told otherwise."""
        before = self.manager.lines().count("READY=1")
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config), *arguments],
                env=self.environ | dict(environ or {}),
                stderr=log,
                stdout=log,
                cwd=self.folder,
            )
        if ready:
            self.wait_for(lambda: self.manager.lines().count("READY=1") > before)
        return self

    def wait_for(self, holds: Callable[[], Any], *, seconds: float = 60.0) -> None:
        """Wait until something holds, as long as the daemon lives."""

        def holds_while_alive() -> Any:
            if holds():
                return True
            assert self.child.poll() is None, f"ended: {self.log.read_text()}"
            return False

        wait_until(holds_while_alive, seconds=seconds, explain=lambda: self.log.read_text()[-3000:])

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def ended(self, *, seconds: float = 60.0) -> int:
        """Waits for its end. Returns the exit code."""
        try:
            return self.child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self.log.read_text()[-2000:]}") from None

    def stop(self) -> int:
        """Stops it as an operator does. Returns the exit code."""
        self.child.terminate()
        return self.ended()

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Returns the events that it logged, or those of one kind."""
        lines: Iterable[str] = self.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if not name or event["event"] == name]

    def command(
        self, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs another command with the same configuration."""
        return subprocess.run(
            [*PILLOWD, *arguments, "--config", str(self.config)],
            env=self.environ | dict(environ or {}),
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=120,
            check=False,
        )

    def command_here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs another command within this process, which saves the time that a new one takes to import."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), chdir(self.folder):
            code = run_command([*arguments, "--config", str(self.config)])
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def ask(self, *arguments: str) -> Any:
        """Returns the value that a command prints with `--json`."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ask_here(self, *arguments: str) -> Any:
        """Returns the value that a command within this process prints with `--json`."""
        done = self.command_here(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self, pillow: str) -> dict[str, Any]:
        """The facts of one pillow, asked over the admin socket; of a stopped daemon, by the command."""
        if self._child is not None and self._child.poll() is None:
            pillows = HttpClient(self.folder / "admin.sock").call("list_pillows")["pillows"]
        else:
            pillows = self.ask("status")["pillows"]
        found: dict[str, Any] = next(each for each in pillows if each["pillow"] == pillow)
        return found

    def state(self, pillow: str) -> str:
        """The state of one pillow."""
        return str(self.status(pillow)["state"])
