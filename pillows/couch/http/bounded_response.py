"""Bound what a server sends beside the body of a response, and give way while it floods.

http.client reads answers of status 100, trailers and chunks without content for as long as they come.
"""

from __future__ import annotations

import io
import socket
from http.client import HTTPException, HTTPResponse
from typing import Any

import urllib3

from pillows.clock import Turn

#: Bytes that a server may send without any of the body: its head, trailers, empty blocks of compressed data.
MAX_OVERHEAD_BYTES = 2**20

_BLOCK_BYTES = 65536

#: Answers of status 100 before the final one.
MAX_INTERIM_ANSWERS = 10


class FloodError(HTTPException):
    """The server sends and sends, but nothing of the body."""


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
            raise FloodError(f"{MAX_OVERHEAD_BYTES} bytes without any of the body")
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

    def _read_status(self) -> tuple[str, int, str]:
        self._interim_answers += 1
        if self._interim_answers > MAX_INTERIM_ANSWERS:
            raise FloodError(f"{self._interim_answers} answers of status 100")
        return super()._read_status()  # type: ignore[misc,no-any-return] # typeshed lacks it


def read_bounded(response: urllib3.HTTPResponse, max_bytes: int) -> bytes:
    """Return the body of an unread response, decompressed, in pieces that let other greenlets run.

    What is longer than `max_bytes` is cut off a little behind it.

    Raises:
        FloodError: the server sends, but nothing of the body.
    """
    turn, size_bytes = Turn(), 0
    parts: list[bytes] = []
    original = response._original_response  # noqa: SLF001 - the only way to the socket's reader
    while size_bytes <= max_bytes and (block := response.read(_BLOCK_BYTES, decode_content=True)):
        if isinstance(original, BoundedResponse):
            original.reader.record_body()
        parts.append(block)
        size_bytes += len(block)
        turn.give_way()
    return b"".join(parts)
