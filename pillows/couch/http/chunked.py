"""Read a chunked body in large pieces, whatever the size of its chunks.

http.client and urllib3 read each chunk separately, which takes longer than parsing the one or two rows that
CouchDB sends in it. Here whatever has arrived is taken apart at once.
"""

from __future__ import annotations

import io
from http.client import HTTPException, IncompleteRead
from typing import Any

#: Longest line between two chunks: a size, perhaps with extensions; or a trailer.
MAX_LINE_BYTES = 2**16


class ChunkError(HTTPException):
    """A chunked body is not valid."""


class ChunkDecoder:
    """Takes a chunked body apart (RFC 9112, section 7.1). Pure.

    Attributes:
        is_over: whether the body has ended.
        error: why the body is invalid; None while it is valid. The data before the error is valid.
    """

    __slots__ = ("_in_trailer", "_is_between", "_left", "_rest", "error", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self.error: ChunkError | None = None
        self._left = 0  # bytes of the present chunk that are still to come
        self._is_between = True  # no chunk has been read yet, or none follows
        self._in_trailer = False
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        """Return the content that a block of the body holds; it may be empty."""
        pieces: list[bytes] = []
        try:
            self._take_apart(self._rest + block, pieces)
        except ChunkError as error:
            self.error = error
        return b"".join(pieces)

    def _take_apart(self, block: bytes, pieces: list[bytes]) -> None:
        self._rest = b""
        size_bytes = len(block)
        pieces.append(block[: self._left])
        at, left = len(pieces[0]), self._left - len(pieces[0])
        while at < size_bytes and not self.is_over:
            # A line end follows the content of each chunk, and then the size of the next one.
            begin = at if self._is_between else at + 2
            if begin > at and not b"\r\n".startswith(block[at:begin]):
                raise ChunkError("A chunk is longer than it says.")
            end = block.find(b"\r\n", begin)
            if end < 0:
                self._rest = block[at:]
                break
            line, at = block[begin:end], end + 2
            if self._in_trailer:
                self.is_over = not line
                continue
            left = _parse_size(line)
            self._in_trailer = self._is_between = not left
            pieces.append(block[at : at + left])
            at += len(pieces[-1])
            left -= len(pieces[-1])
        self._left = left
        if len(self._rest) > MAX_LINE_BYTES:
            raise ChunkError(f"A line between two chunks is longer than {MAX_LINE_BYTES} bytes.")
        if at < size_bytes and self.is_over:
            raise ChunkError("The server sends more after the end of the body.")


def _parse_size(line: bytes) -> int:
    """Return the size of a chunk; its line is not quoted in an error, since it may be a document's."""
    digits = line.partition(b";")[0].strip()
    try:
        if digits.isalnum():  # `int` also takes signs and underscores
            return int(digits, 16)
    except ValueError:
        pass
    raise ChunkError("A chunk begins without its size.")


class ChunkedReader(io.RawIOBase):
    """The content of a chunked body.

    Args:
        source: gives the body as it arrives.
    """

    def __init__(self, source: io.BufferedIOBase) -> None:
        self._source = source
        self._decoder = ChunkDecoder()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read content into `buffer` as it arrives; 0 at the end of the body.

        Raises:
            HTTPException: the body is not valid, or was cut off.
        """
        while not self._decoder.is_over:
            if self._decoder.error is not None:
                raise self._decoder.error
            block = self._source.read1(len(buffer))
            if not block:
                raise IncompleteRead(b"")
            content = self._decoder.feed(block)
            if content:
                buffer[: len(content)] = content
                return len(content)
        return 0

    def close(self) -> None:
        """Close the source."""
        self._source.close()
        super().close()
