"""One worker process, seen from its coordinator."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent import socket, subprocess
from gevent.queue import Queue
from msgspec import Struct

from pillows.clock import Clock
from pillows.parallel import protocol

#: Signals of a crash of the program itself.
_CRASHES = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS)
)
#: Longest time for a process to end after it has closed its connection.
_END_SECONDS = 2.0
#: Runs the module named by the second argument; the following arguments are its import path. Before that it
#: asks the kernel to kill it when its parent ends (prctl(2): PR_SET_PDEATHSIG, SIGKILL): a user's modules may
#: take seconds to import.
_START = """\
import ctypes, runpy, sys
ctypes.CDLL(None).prctl(1, 9)
sys.path[:] = sys.argv[3:]
runpy.run_module(sys.argv[2], run_name="__main__")
"""


class Cause(StrEnum):
    """Why a worker process ended."""

    ENDED = "ended"  # it was asked to
    REFUSED = "refused"  # it could not work with its setup
    CRASHED = "crashed"  # by a signal such as SIGSEGV, or it exited by itself
    KILLED = "killed"  # by a signal from outside: SIGKILL, of an operator or of the kernel without memory
    HUNG = "hung"  # killed here, since it gave no sign of life
    MEMORY = "memory"  # a task took too much: it ended by itself, or was killed here


class Ending(Struct, frozen=True):
    """How a worker process ended.

    Attributes:
        cause: why.
        how: the signal or exit code, for people.
    """

    cause: Cause
    how: str = ""

    def __str__(self) -> str:
        """Return cause and details as text."""
        return f"{self.cause} ({self.how})" if self.how else str(self.cause)


class Program(Struct, frozen=True, kw_only=True):
    """The program of a worker process, with its input.

    Attributes:
        module: the main module. It serves the socket whose descriptor is its first argument.
        setup: the first message to it.
        environ: its environment; by default that of this process.
    """

    module: str
    setup: msgspec.Raw
    environ: Mapping[str, str] | None = None


class WorkerProcess:
    """Starts a worker process and talks to it. Only its coordinator uses this.

    Args:
        program: its program.
        task_bytes: memory limit of a task.
        clock: for ages.

    Attributes:
        given: numbers of the tasks that were sent and are not done, the oldest first.
        taken: the number of its current task; None if it is idle.
        is_ready: whether it can take tasks.
        retiring: whether it gets no more tasks.
        heard_at: monotonic seconds of its last message.
        killed_for: why it was killed here; None if it was not.
    """

    def __init__(self, program: Program, task_bytes: int, clock: Clock) -> None:
        self.given: deque[int] = deque()
        self.taken: int | None = None
        self.is_ready = False
        self.retiring = False
        self.heard_at = clock.monotonic()
        self.killed_for: Cause | None = None
        self._task_bytes = task_bytes
        self._clock = clock
        self._outbox: Queue[protocol.ToWorker | None] = Queue()
        ours, theirs = socket.socketpair()
        self._socket = ours
        try:
            self._process: Any = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), program.module, *_list_paths()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output may be a target
                env=program.environ,
                start_new_session=True,  # Ctrl-C is for the coordinator, which ends its workers
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._sender = gevent.spawn(self._send)
        self.post(protocol.Setup(os.getpid(), task_bytes, program.setup))

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid)

    @property
    def rss_bytes(self) -> int:
        """Its resident memory; 0 once it has ended."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def post(self, message: protocol.ToWorker) -> None:
        """Queue a message for the worker; do not wait until it is read."""
        self._outbox.put(message)

    def receive(self) -> protocol.ToCoordinator | None:
        """Wait for a message, and return it; return None once the worker has closed its side or died."""
        try:
            message = protocol.receive_in_coordinator(self._socket)
        except (OSError, protocol.ProtocolError):  # cut off within a message
            return None
        self.heard_at = self._clock.monotonic()
        return message

    def end(self) -> None:
        """Ask it to end after its current tasks."""
        self.retiring = True
        self._outbox.put(None)

    def kill(self, cause: Cause) -> None:
        """Kill it."""
        self.killed_for = self.killed_for or cause
        with suppress(OSError):
            self._process.kill()

    def reap(self) -> Ending:
        """Wait for its end, release its resources, and return how it ended."""
        self._sender.kill()
        self._socket.close()
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill(Cause.HUNG)
            code = self._process.wait()
        if self.killed_for is Cause.MEMORY or code == protocol.OUT_OF_MEMORY:
            bound = f"a task may take {self._task_bytes / 2**20:,.0f} MiB"
            return Ending(Cause.MEMORY, bound if self.is_ready else "")
        if self.killed_for is not None:
            return Ending(self.killed_for)
        if code == 0 and not self.given:
            return Ending(Cause.ENDED)
        if code >= 0:
            return Ending(Cause.CRASHED, f"exit code {code}")
        cause = Cause.CRASHED if -code in _CRASHES else Cause.KILLED
        return Ending(cause, _name_signal(-code))

    def _send(self) -> None:
        with suppress(OSError):  # it has died, which `receive` notices
            while (message := self._outbox.get()) is not None:
                protocol.send(self._socket, message)
            self._socket.shutdown(socket.SHUT_WR)


def _list_paths() -> list[str]:
    """Return this process's import path, in absolute form: its working directory may have changed."""
    return [str(Path(each).absolute()) for each in sys.path]


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
