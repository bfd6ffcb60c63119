"""The messages between a coordinator and a worker, over a private pair of sockets.

A frame is four bytes of length (big-endian), then one message in MessagePack. The coordinator sends `Setup`
once, then tasks. The worker answers `Ready` or `Refused`, then for each task `Take` when it begins, and
`Done` or `Failed`. `Alive` is a sign of life; `Note` reports an event for the log. The protocol does not know
the content of payloads.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from pillows import errors
from pillows.errors import FatalError, PillowError, RetryableError

#: A longer frame means that the peer does not speak this protocol.
MAX_FRAME_BYTES = 2**31
#: The exit code of a worker whose task exceeded its memory limit.
OUT_OF_MEMORY = 71

_LENGTH_BYTES = 4
#: Most bytes of one read: the buffer of a socket pair has about 200 kB.
_READ_BYTES = 2**20
#: The classes of errors that are sent, by their names.
_KINDS = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, PillowError)
}


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error that is sent to the coordinator.

    Attributes:
        kind: the name of its class, or of its nearest base class, in `pillows.errors`.
        text: the reason.
        remedy: the remedy of a `FatalError`.
        retry_after_seconds: the delay that a `RetryableError` asks for.
    """

    kind: str
    text: str
    remedy: str = ""
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, error: PillowError) -> Failure:
        """Convert an error into the form that is sent."""
        kind = next(each.__name__ for each in type(error).__mro__ if each.__name__ in _KINDS)
        return cls(
            kind,
            str(error.args[0]) if error.args else kind,
            error.remedy if isinstance(error, FatalError) else "",
            error.retry_after_seconds if isinstance(error, RetryableError) else None,
        )

    def to_error(self) -> PillowError:
        """Convert this form back into an error of the same kind."""
        kind = _KINDS.get(self.kind, PillowError)
        if issubclass(kind, FatalError):
            return kind(self.text, remedy=self.remedy)
        if issubclass(kind, RetryableError):
            return kind(self.text, retry_after_seconds=self.retry_after_seconds)
        return kind(self.text)


class Setup(msgspec.Struct, frozen=True, array_like=True, tag="setup"):
    """The first message to a worker.

    Attributes:
        parent: the process id of the coordinator.
        task_bytes: memory limit of a task.
        payload: data for the work; its format belongs to the code that starts the workers.
    """

    parent: int
    task_bytes: int
    payload: msgspec.Raw


class Task(msgspec.Struct, frozen=True, array_like=True, tag="task"):
    """A task for a worker."""

    number: int
    payload: msgspec.Raw


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The worker is ready for tasks."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The worker cannot work with its setup, and ends."""

    failure: Failure


class Take(msgspec.Struct, frozen=True, array_like=True, tag="take"):
    """The worker has begun a task."""

    number: int


class Alive(msgspec.Struct, frozen=True, array_like=True, tag="alive"):
    """The worker is still working."""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The result of a task."""

    number: int
    payload: msgspec.Raw


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """A task that failed, for now or for good."""

    number: int
    failure: Failure


class Note(msgspec.Struct, frozen=True, array_like=True, tag="note"):
    """An event for the log of the coordinator."""

    event: str
    details: dict[str, Any]


#: What a worker receives.
ToWorker = Setup | Task
#: What a coordinator receives.
ToCoordinator = Ready | Refused | Take | Alive | Done | Failed | Note

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "worker": msgspec.msgpack.Decoder(ToWorker),
    "coordinator": msgspec.msgpack.Decoder(ToCoordinator),
}


class Stream(Protocol):
    """A connected socket, of the standard library or of gevent."""

    def sendall(self, data: Any, /) -> object:
        """Send all of the data."""

    def recv_into(self, buffer: Any, /) -> int:
        """Read into a buffer; return the number of bytes, 0 at the end."""


class ProtocolError(PillowError):
    """The peer does not speak this protocol, or was cut off within a message."""


def to_payload(value: Any) -> msgspec.Raw:
    """Return a value as the payload of a message.

    Raises:
        TypeError, OverflowError: MessagePack cannot hold it.
    """
    return msgspec.Raw(_encoder.encode(value))


def send(stream: Stream, message: ToWorker | ToCoordinator) -> None:
    """Send one message.

    Raises:
        OSError: the peer has closed the connection.
    """
    frame = bytearray(_LENGTH_BYTES)
    _encoder.encode_into(message, frame, _LENGTH_BYTES)  # the only copy of its payload
    frame[:_LENGTH_BYTES] = (len(frame) - _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "big")
    stream.sendall(frame)


def receive_in_worker(stream: Stream) -> ToWorker | None:
    """Read one message of the coordinator; return None once it has ended.

    Raises:
        ProtocolError: the bytes are not a message.
        OSError: the coordinator has closed the connection.
    """
    message: ToWorker | None = _receive(stream, "worker")
    return message


def receive_in_coordinator(stream: Stream) -> ToCoordinator | None:
    """Read one message of a worker; see `receive_in_worker`."""
    message: ToCoordinator | None = _receive(stream, "coordinator")
    return message


def _receive(stream: Stream, where: str) -> Any:
    head = _read(stream, _LENGTH_BYTES)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > MAX_FRAME_BYTES:
        raise ProtocolError(f"A message cannot have {size} bytes.")
    body = _read(stream, size)
    if body is None:
        raise ProtocolError("The connection ended within a message.")
    try:
        return _decoders[where].decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"This is not a message: {error}.") from error


def _read(stream: Stream, size: int) -> bytearray | None:
    """Read `size` bytes; return None if the connection ended before the first one."""
    buffer = bytearray(size)
    view, begin = memoryview(buffer), 0
    while begin < size:
        count = stream.recv_into(view[begin : begin + _READ_BYTES])
        if not count:
            if begin:
                raise ProtocolError("The connection ended within a message.")
            return None
        begin += count
    return buffer
