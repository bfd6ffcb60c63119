"""Run one server process: start it, wait until it answers, stop it by its pid, show its log when it fails."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
READY_DEADLINE_SECONDS = 180.0  # a JVM needs up to a minute on a machine that is busy with other tests
STOP_DEADLINE_SECONDS = 20.0
LOG_TAIL_LINES = 40
PR_SET_PDEATHSIG = 1


class ServerUnavailable(Exception):
    """The server cannot be had on this machine, or did not start."""


def free_port() -> int:
    """Returns a port nobody listens on, below the range that outgoing connections are given.

    A port from that range might become some client's own before a killed server is started on it again.
    """
    for _ in range(100):
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    msg = "no free port between 15000 and 32000"
    raise ServerUnavailable(msg)


def die_with_parent(death_signal: int) -> Callable[[], None]:
    """Returns what a child runs before exec, so that the kernel ends it when we die, even by SIGKILL."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), death_signal)

    return arrange


class Server:
    """One server on 127.0.0.1 with a data directory and a port that both outlive restarts."""

    name: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    orphan_signal: ClassVar[int] = signal.SIGKILL

    def __init__(self, *, data_dir: Path | None = None, port: int | None = None) -> None:
        self._owns_data_dir = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix=f"pillowd-{self.name}-"))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    # What each kind of server says about itself

    @classmethod
    def install(cls) -> None:
        """Fetches what the server is made of, where that is still missing; may raise ServerUnavailable."""
        raise NotImplementedError

    @property
    def where(self) -> str:
        """URL or connection string."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Creates the server's data, where that is still missing."""

    def command(self) -> Sequence[str | Path]:
        """Returns the command line that runs the server in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Returns what is added to our own environment."""
        return {}

    def os_user(self) -> str | None:
        """Returns the operating system's user that it runs as; None is ours."""
        return None

    def answers(self) -> bool:
        """Asks once whether the server is ready; may raise OSError."""
        raise NotImplementedError

    # What all have in common

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    @property
    def log_path(self) -> Path:
        """Where it writes its output."""
        return self.data_dir / "server.log"

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Starts the server and returns when it answers.

        Raises:
            ServerUnavailable: it cannot be installed, exits, or does not answer in time; with its log's end.
        """
        if self.pid is not None:
            return
        self.install()
        self.prepare()
        self._process = self._spawn()
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Asks the server to end, and insists after a while."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Ends the server as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops and starts it: same data, same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Lets the server hang: it keeps its connections and says nothing."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:  # a busy JVM's threads go on for a while, and answer: wait for the last
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Lets a frozen server go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stops the server and removes the data directory, unless that was given."""
        self.stop()
        if self._owns_data_dir:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment()},
                cwd=self.data_dir,
                start_new_session=True,  # Ctrl-C at a terminal is for us: we stop our servers in order
                preexec_fn=die_with_parent(self.orphan_signal),  # noqa: PLW1509 - it only calls prctl
                **as_user(self.os_user()),
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise ServerUnavailable(self._report("ended while starting"))
            try:
                if self.answers():
                    return
            except OSError:
                pass  # not listening yet; requests' errors are OSErrors too
            time.sleep(0.05)
        raise ServerUnavailable(self._report(f"did not answer within {READY_DEADLINE_SECONDS:.0f} s"))

    def _report(self, what: str) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"{self.name} {what}; the end of {self.log_path}:", *lines])

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: int) -> None:
        self._signal(number)
        if self._process is None:
            return
        self._signal(signal.SIGCONT)  # a frozen process takes no other signal than SIGKILL
        try:
            self._process.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class HttpServer(Server):
    """A server that speaks HTTP."""

    @property
    def where(self) -> str:
        """The URL."""
        return self.url

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end and without credentials."""
        return f"http://127.0.0.1:{self.port}"


def as_user(user: str | None) -> dict[str, Any]:
    """Returns the arguments that make `subprocess` drop to a user; None stays who we are."""
    if user is None:
        return {}
    import pwd

    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
