"""Check that bytes are UTF-8, without making a text of them all."""

from __future__ import annotations

from codecs import getincrementaldecoder

#: Bytes decoded at a time: four times as many are held meanwhile.
_PIECE_BYTES = 2**20


def is_utf8(text: bytes | memoryview) -> bool:
    """Return whether bytes are valid UTF-8."""
    view = memoryview(text)
    decoder = getincrementaldecoder("utf-8")()
    try:
        for begin in range(0, len(view), _PIECE_BYTES):
            decoder.decode(view[begin : begin + _PIECE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
