"""The head of a request: what is clear is parsed, everything else is refused."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.http.server.head import RequestHead, parse_head
from daemon.http.server.refusals import RefusedError

LINE = b"GET / HTTP/1.1\r\n"


def parse(*headers: bytes, line: bytes = LINE) -> RequestHead:
    return parse_head(line, [each + b"\r\n" for each in headers])


def refuse(*headers: bytes, line: bytes = LINE) -> int:
    with pytest.raises(RefusedError) as refused:
        parse(*headers, line=line)
    return refused.value.status


def test_the_environment_is_that_of_wsgi() -> None:
    head = parse(
        b"Host: a:1",
        b"X-One:  b\tc \t",
        b"x-one: \xe9",
        b"X_One: hidden",
        b"Content-Type: text/plain",
        b"Content-Length: 3",
        line=b"PUT /a%2Fb%C3%A9?c=%20 HTTP/1.1\n",
    )
    assert dict(head.to_environ()) == {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b\xc3\xa9",
        "QUERY_STRING": "c=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "a:1",
        "HTTP_X_ONE": "b\tc,\xe9",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
    }
    assert (head.content_length, head.is_chunked) == (3, False)


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        (b"1.1", b"", False),
        (b"1.1", b"Close", True),
        (b"1.1", b"keep-alive", False),
        (b"1.0", b"", True),
        (b"1.0", b"Keep-Alive", False),
    ],
)
def test_the_version_and_the_client_say_whether_the_connection_stays(
    version: bytes, connection: bytes, closes: bool
) -> None:
    head = parse(b"Connection: " + connection, line=b"GET / HTTP/%s\r\n" % version)
    assert head.closes is closes


def test_chunks_of_http_1_0_close_the_connection() -> None:
    """RFC 9112, section 6.1: their end may have been seen elsewhere."""
    head = parse(b"Connection: keep-alive", b"Transfer-Encoding: Chunked", line=b"POST / HTTP/1.0\r\n")
    assert head.is_chunked
    assert head.closes


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n",
        b"GET /\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/0.9\r\n",
        b"GET / HTTP/1\r\n",
        b"GET /\x85x HTTP/1.1 y\r\n",
        b"GET / HTTP/1.1",
        b"G(T / HTTP/1.1\r\n",
        b"GET /\x00 HTTP/1.1\r\n",
    ],
)
def test_other_first_lines_are_refused(line: bytes) -> None:
    assert refuse(line=line) == 400


@pytest.mark.parametrize(
    "header",
    [
        b"no header",
        b": no name",
        b"Name : space before the colon",
        b" folded: onto the line before",
        b"\tfolded",
        b"X: a\rb",
        b"X: a\x00b",
        b"X: a\x0cContent-Length: 3",
        b"X: a\x7f",
        b"N\xe4me: x",
    ],
)
def test_lines_that_are_not_headers_are_refused(header: bytes) -> None:
    assert refuse(b"A: b", header) == 400


def test_line_breaks_of_unicode_are_part_of_a_value() -> None:
    """The proxies in front of us parse them so, too. Python's parser begins another header there."""
    head = parse(b"X: a\x85Content-Length: 3")
    assert head.headers == {"x": "a\x85Content-Length: 3"}


@pytest.mark.parametrize("length", [b"", b"x", b"-1", b"+1", b"1_0", b"0x1", b"1,1", b"\xb2", b"1 1"])
def test_a_length_is_decimal_digits(length: bytes) -> None:
    assert refuse(b"Content-Length: " + length) == 400


@pytest.mark.parametrize("length", [b"65537", b"9" * 20, b"9" * 10_000])
def test_a_body_that_would_be_too_large_is_refused(length: bytes) -> None:
    assert refuse(b"Content-Length: " + length) == 413
    assert parse(b"Content-Length: 65536").content_length == 65536


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding"])
def test_what_decides_is_given_once(name: bytes) -> None:
    assert refuse(name + b": 1", name.upper() + b": 1") == 400


def test_length_and_chunks_and_other_encodings_are_refused() -> None:
    assert refuse(b"Content-Length: 0", b"Transfer-Encoding: chunked") == 400
    assert refuse(b"Transfer-Encoding: gzip, chunked") == 400
    assert refuse(b"Transfer-Encoding: identity") == 400


def test_a_hundred_headers_are_enough() -> None:
    assert len(parse(*(b"X-%d: y" % n for n in range(100))).headers) == 100
    assert refuse(*(b"X-%d: y" % n for n in range(101))) == 400


@given(st.binary(max_size=60), st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_parsed_or_refused(line: bytes, headers: list[bytes]) -> None:
    with suppress(RefusedError):
        head = parse_head(line, headers)
        assert all("\n" not in value and "\r" not in value for value in head.headers.values())


@pytest.mark.parametrize("end", [b"y", b"\x01", b""])
def test_blanks_take_a_time_that_grows_with_their_number(end: bytes) -> None:
    """It is the hub's time. A pattern that tries each split of the blanks would need hours for these."""
    began = time.process_time()
    with suppress(RefusedError):
        parse(b"A:x" + b" " * 32_000 + end)
    with suppress(RefusedError):
        parse(b"A:" + b" " * 32_000 + end)
    assert time.process_time() - began < 1
