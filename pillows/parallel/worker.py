"""The worker's side: serves one coordinator over one socket, and ends when the coordinator ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn, Protocol

import msgspec

from pillows.errors import PillowError
from pillows.parallel import protocol
from pillows.parallel.memory import bound_memory
from pillows.parallel.protocol import Failure
from pillows.user_code import confine, describe_error, end_without_memory

#: Interval of the signs of life during a task.
ALIVE_SECONDS = 5.0

#: When memory runs out, the kernel kills the process with the highest score first.
_OOM_SCORE = "500"


class Work(Protocol):
    """Handles the tasks of a worker."""

    def run(self, payload: msgspec.Raw) -> Any:
        """Do one task; return its result, in types that MessagePack has.

        Raises:
            PillowError: the task failed, for now or for good.
        """

    def close(self) -> None:
        """Close every connection."""


class Channel:
    """Sends a worker's messages. Several greenlets may send; messages are never mixed.

    Args:
        stream: the socket.
    """

    def __init__(self, stream: protocol.Stream) -> None:
        self._stream = stream
        self._sent_at = time.monotonic()
        self._lock = Lock()  # of gevent, where it has patched the program

    def send(self, message: protocol.ToCoordinator) -> None:
        """Send a message; may wait until the coordinator reads it."""
        with self._lock:
            self._sent_at = time.monotonic()
            protocol.send(self._stream, message)

    def note(self, event: str, **details: Any) -> None:
        """Report an event for the coordinator's log."""
        self.send(protocol.Note(event, details))

    def tick(self) -> None:
        """Send a sign of life if it is time, unless another message is being sent."""
        if time.monotonic() - self._sent_at >= ALIVE_SECONDS and not self._lock.locked():
            self.send(protocol.Alive())


def serve(
    channel: Channel,
    receive: Callable[[], protocol.ToWorker | None],
    open_work: Callable[[msgspec.Raw, Channel], Work],
) -> None:
    """Do tasks until the coordinator ends.

    Args:
        channel: for messages to the coordinator.
        receive: returns the coordinator's next message; None once it has ended.
        open_work: makes the `Work`, from the payload of `Setup`.

    Raises:
        OSError, ProtocolError: the coordinator has closed the connection.
    """
    setup = receive()
    if not isinstance(setup, protocol.Setup):
        return
    end_with_parent(setup.parent)
    try:
        work = open_work(setup.payload, channel)
    except PillowError as error:
        channel.send(protocol.Refused(Failure.of(error)))
        return
    bound_memory(setup.task_bytes)  # now that all modules are loaded
    end_without_memory(_exit_without_memory)
    channel.send(protocol.Ready())
    with closing(work):
        while isinstance(task := receive(), protocol.Task):
            channel.send(protocol.Take(task.number))
            channel.send(_do(work, task))


def end_with_parent(parent: int) -> None:
    """End this process if its parent has ended; otherwise let the kernel kill it first if memory runs out.

    Args:
        parent: the parent's process id. It may have ended before this process asked to end with it.
    """
    if os.getppid() != parent:
        os._exit(0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _exit_without_memory() -> NoReturn:
    os._exit(protocol.OUT_OF_MEMORY)


def _do(work: Work, task: protocol.Task) -> protocol.ToCoordinator:
    try:
        return protocol.Done(task.number, protocol.to_payload(work.run(task.payload)))
    except PillowError as error:
        return protocol.Failed(task.number, Failure.of(error))
    except BaseException as error:  # noqa: BLE001 - of a user's code: the coordinator decides what follows
        return protocol.Failed(task.number, Failure("PillowError", describe_error(confine(error))))
