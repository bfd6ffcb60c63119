"""Read a response block by block, as it arrives; bound what a server sends in addition to its body.

http.client reads answers of status 100, trailers and chunks without content for as long as they come.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPResponse
from typing import Any

import requests
import urllib3

from pillows.clock import Clock, Turn
from pillows.couch.http.chunked import ChunkedReader
from pillows.errors import PermanentError, RetryableError

#: Largest block.
BLOCK_BYTES = 65536

#: Bytes that a server may send that are no part of the body: head, trailers, empty blocks of compressed data.
MAX_OVERHEAD_BYTES = 2**20

#: Answers of status 100 before the final one.
MAX_INTERIM_ANSWERS = 10


class FloodError(HTTPException):
    """The server sends and sends, but nothing of the body."""


class TooLargeError(PermanentError):
    """The response is larger than the caller accepts in memory."""


class UnreadableError(RetryableError):
    """A document in the response is not valid JSON, or nests too deep."""


class BoundedReader(io.RawIOBase):
    """Reads from a socket, gives way by time, and bounds the bytes that are not of the body.

    Args:
        raw: the socket's own reader.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._turn = Turn()
        self._overhead_bytes = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read into `buffer`.

        Raises:
            FloodError: more than `MAX_OVERHEAD_BYTES` have arrived since the last part of the body.
        """
        self._turn.give_way()
        size_bytes = self._raw.readinto(buffer)
        self._overhead_bytes += size_bytes or 0
        if self._overhead_bytes > MAX_OVERHEAD_BYTES:
            raise FloodError(f"{MAX_OVERHEAD_BYTES} bytes in a row that are no part of the body")
        return size_bytes

    def record_body(self) -> None:
        """Note that a part of the body has arrived."""
        self._overhead_bytes = 0

    def close(self) -> None:
        """Close the socket's reader."""
        self._raw.close()
        super().close()


class BoundedResponse(HTTPResponse):
    """http.client's response over a `BoundedReader`.

    Attributes:
        reader: reads from the socket.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.reader = BoundedReader(self.fp.detach())
        self.fp = io.BufferedReader(self.reader)
        self._interim_answers = -1  # the final answer is not one

    def begin(self) -> None:
        """Read the head; a chunked body is then read as if it had no chunks."""
        super().begin()
        if self.chunked:
            self.fp = io.BufferedReader(ChunkedReader(self.fp))
            self.chunked = False
            del self.headers["Transfer-Encoding"]  # or urllib3 would look for chunks

    def _read_status(self) -> tuple[str, int, str]:
        self._interim_answers += 1
        if self._interim_answers > MAX_INTERIM_ANSWERS:
            raise FloodError(f"{self._interim_answers} answers with status 100 before the real one")
        return super()._read_status()  # type: ignore[misc,no-any-return] # typeshed lacks it


class ActivityMonitor:
    """Records when the last byte arrived.

    Attributes:
        at: monotonic seconds; None before the first.
        blocks: blocks that have arrived.
    """

    __slots__ = ("_clock", "at", "blocks")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at: float | None = None
        self.blocks = 0

    def record(self) -> None:
        """Count a block that arrived now."""
        self.at = self._clock.monotonic()
        self.blocks += 1


class StreamingResponse:
    """A response whose body is being read.

    Args:
        response: of requests, unread.
        translate_errors: a context that turns errors of reading into the error tree.
        activity: records every block.

    Attributes:
        headers: the response's headers.
    """

    def __init__(
        self,
        response: requests.Response,
        translate_errors: Callable[[], AbstractContextManager[None]],
        activity: ActivityMonitor,
    ) -> None:
        self.headers = response.headers
        self._raw: urllib3.HTTPResponse = response.raw
        self._translated = translate_errors
        self._activity = activity

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it arrives, without chunking and compression.

        Raises:
            RetryableError: the connection broke, or was silent for too long.
        """
        turn = Turn()
        response = self._raw._original_response  # noqa: SLF001 - the only way to the socket's reader
        reader = response.reader if isinstance(response, BoundedResponse) else None
        with self._translated():
            while block := self._raw.read1(BLOCK_BYTES, decode_content=True):
                if reader is not None:
                    reader.record_body()
                self._activity.record()
                yield block
                turn.give_way()  # compressed blocks come without reading from the socket

    def read(self, max_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            TooLargeError: it is larger than `max_bytes`.
            RetryableError: as `blocks`.
        """
        parts: list[bytes] = []
        size_bytes = 0
        for block in self.blocks():
            parts.append(block)
            size_bytes += len(block)
            if size_bytes > max_bytes:
                parts.clear()  # an error keeps the variables of its frames
                raise TooLargeError(f"The response is larger than {max_bytes} bytes.")
        return b"".join(parts)


def read_bounded(response: urllib3.HTTPResponse, max_bytes: int) -> bytes:
    """Return the body of an unread response, decompressed, in pieces that let other greenlets run.

    A longer body is cut off shortly after `max_bytes`.

    Raises:
        FloodError: the server sends, but nothing of the body.
    """
    turn, size_bytes = Turn(), 0
    parts: list[bytes] = []
    original = response._original_response  # noqa: SLF001 - the only way to the socket's reader
    while size_bytes <= max_bytes and (block := response.read(BLOCK_BYTES, decode_content=True)):
        if isinstance(original, BoundedResponse):
            original.reader.record_body()
        parts.append(block)
        size_bytes += len(block)
        turn.give_way()
    return b"".join(parts)
