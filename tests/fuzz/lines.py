"""The reader of CouchDB's lines: any bytes, cut anywhere, end in changes or in an error, in bounded memory.

The last bytes of an input say where the rest is cut into blocks, and which reader gets them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pillows.feed.parsing.changes_parser import (
    ChangesParser,
    ContinuousParser,
    MalformedFeedError,
    PageParser,
)

MAX_LINE_BYTES = 10_000

SEEDS = [
    (
        b'{"results":[\n{"seq":"1-x","id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a"}},\r\n'
        b'{"seq":null,"id":"b","changes":[{"rev":"2-a"},{"rev":"1-b"}],"deleted":true}\n],\n'
        b'"last_seq":"2-x","pending":0}\n'
    ),
    (
        b'\n\n{"seq":[7,"g1A"],"id":"\xe2\x80\xa8","changes":[{"rev":"1-a"}],"doc":null}\n'
        b'{"last_seq":7,"pending":null}\n\n'
    ),
    b'{"results":[{"seq":1,"id":"a","changes":[{"rev":"1-a"}]}],"last_seq":1}\n',
    b'HTTP/1.1 412 Precondition Failed\r\n\r\n{"error":"nodedown"}\n',
    b'{"seq":"1","id":"a","changes":[{"rev":"1-a"}],"doc":' + b"[" * 2000 + b"]" * 2000 + b"}\n",
]


def blocks(data: bytes, step: int) -> Iterator[bytes]:
    """The bytes in blocks of uneven lengths that `step` decides."""
    begin, length = 0, 1 + step % 251
    while begin < len(data):
        yield data[begin : begin + length]
        begin += length
        length = 1 + (length * 31 + step) % 1499


def one(data: bytes) -> None:
    """Reads one input, and raises what nobody may ever see."""
    if len(data) < 2:
        return
    step, kind = data[-1], data[-2] % 2
    reader: ChangesParser = ContinuousParser(MAX_LINE_BYTES) if kind else PageParser(MAX_LINE_BYTES)
    try:
        for block in blocks(data[:-2], step):
            for change, size_bytes in reader.feed(block):
                if change.leaf_version <= 0 or not change.revs or size_bytes > len(data):
                    raise AssertionError(f"not a change: {change}")
    except MalformedFeedError:
        pass
    if reader._splitter._size_bytes > MAX_LINE_BYTES + 1500:
        raise AssertionError("more is held than a line may have")
