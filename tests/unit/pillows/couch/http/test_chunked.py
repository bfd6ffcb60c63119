"""Chunked bodies, however they arrive and break."""

from __future__ import annotations

import io
from http.client import HTTPException, IncompleteRead

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillows.couch.http.chunked import MAX_LINE_BYTES, ChunkDecoder, ChunkedReader

END = b"0\r\n\r\n"


def framed(*contents: bytes, extension: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in contents)


def decode(decoder: ChunkDecoder, body: bytes, size: int) -> bytes:
    return b"".join(decoder.feed(body[at : at + size]) for at in range(0, len(body), size))


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.integers(1, 60),
    st.sampled_from([b"", b";name=value", b" ; name"]),
    st.sampled_from([END, b"0;last\r\nTrailer: x\r\nAnother: y\r\n\r\n", b"000\r\n\r\n"]),
)
def test_the_content_is_the_same_however_it_is_cut(
    contents: list[bytes], size: int, extension: bytes, end: bytes
) -> None:
    decoder = ChunkDecoder()
    assert decode(decoder, framed(*contents, extension=extension) + end, size) == b"".join(contents)
    assert decoder.is_over
    assert decoder.error is None


@given(st.binary(max_size=200), st.integers(1, 60))
def test_anything_else_is_an_error_or_goes_on(body: bytes, size: int) -> None:
    decoder = ChunkDecoder()
    for at in range(0, len(body), size):
        decoder.feed(body[at : at + size])
        if decoder.error is not None or decoder.is_over:
            return


@pytest.mark.parametrize(
    "broken",
    [
        b"x\r\n",
        b"-5\r\n",
        b"+5\r\nabcde\r\n",
        b"1_0\r\n",
        b"\r\n",
        b";name\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\n",
        b"1" * (MAX_LINE_BYTES + 1),
        b"2\r\nabc\r\n",
        b"2\r\nab\n\n",
        END + b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_what_came_before_an_error_is_content(broken: bytes) -> None:
    decoder = ChunkDecoder()
    assert decoder.feed(framed(b"before") + broken).startswith(b"before")
    assert decoder.error is not None


def reader(body: bytes) -> io.BufferedReader:
    return io.BufferedReader(ChunkedReader(io.BufferedReader(io.BytesIO(body))))


def test_a_body_ends_with_its_last_chunk() -> None:
    read = reader(framed(b"one", b"two") + END)
    assert read.read1(100) == b"onetwo"
    assert read.read1(100) == b""


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_no_more_is_read_than_there_is_room_for(size: int) -> None:
    read = ChunkedReader(io.BufferedReader(io.BytesIO(framed(b"one", b"two") + END)))
    parts = []
    while part := read.read(size):
        assert len(part) <= size
        parts.append(part)
    assert b"".join(parts) == b"onetwo"


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_body_without_its_end_is_incomplete(cut: int) -> None:
    body = framed(b"one", b"two") + END
    read = reader(body[:-cut])
    assert read.read1(100) in (b"onetwo"[:n] for n in range(3, 7))
    with pytest.raises(IncompleteRead):
        read.read(100)


def test_an_error_is_raised_behind_the_content() -> None:
    read = reader(framed(b"one") + b"x\r\n")
    assert read.read1(100) == b"one"
    with pytest.raises(HTTPException):
        read.read1(100)
