"""Parse the head of a request, strictly: RFC 9112, sections 2 to 6. Pure.

Python's own parser, which gevent uses, is that of mails: it takes a form feed for the end of a line. A proxy
in front of this server may read such a head in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

from msgspec import Struct

from daemon.http.messages import MAX_BODY_BYTES
from daemon.http.server.refusals import RefusedError

MAX_HEADERS = 100
#: Python converts no more than 4,300 digits.
_MAX_DIGITS = 20

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[0-9])\r?\n" % _TOKEN)
#: The blanks around a value are cut off afterwards: two repeats over the same blanks would take a time that
#: grows with the cube of their number.
_HEADER = re.compile(rb"(%s):([^\x00-\x08\x0a-\x1f\x7f]*)\r?\n" % _TOKEN)
#: Headers that must not be given twice: each reader of them may take another one.
_SINGLE = frozenset({"host", "content-length", "transfer-encoding"})
#: WSGI has these under their names alone.
_WITHOUT_PREFIX = frozenset({"content-type", "content-length"})


class RequestHead(Struct, frozen=True, kw_only=True):
    """The head of a request.

    Attributes:
        method: as sent.
        target: path and query, as sent.
        version: `HTTP/1.1`, or another minor version.
        headers: name in lower case -> value; the values of one that is given several times, with commas.
        content_length: length of the body in bytes; None if the head does not say it.
    """

    method: str
    target: str
    version: str
    headers: Mapping[str, str]
    content_length: int | None

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "transfer-encoding" in self.headers

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection closed after the answer."""
        connection = self.headers.get("connection", "").lower()
        if self.version == "HTTP/1.0":
            return connection != "keep-alive" or self.is_chunked  # RFC 9112, section 6.1
        return connection == "close"

    def to_environ(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of PEP 3333 that follow from the head."""
        path, _, query = self.target.partition("?")
        yield "REQUEST_METHOD", self.method
        yield "SCRIPT_NAME", ""
        yield "PATH_INFO", unquote(path, "latin-1") if "%" in path else path
        yield "QUERY_STRING", query
        yield "SERVER_PROTOCOL", self.version
        for name, value in self.headers.items():
            if "_" not in name:  # it would have the key of the name with a hyphen
                key = name.replace("-", "_").upper()
                yield key if name in _WITHOUT_PREFIX else f"HTTP_{key}", value


def parse_head(request_line: bytes, lines: Sequence[bytes]) -> RequestHead:
    """Return the head of a request.

    Args:
        request_line: the first line.
        lines: the others, without the empty one that ends them.

    Raises:
        RefusedError: it is not a head of HTTP/1, or the length of its body is not clear or too large.
    """
    first = _REQUEST_LINE.fullmatch(request_line)
    if first is None:
        raise RefusedError(400, "the first line is not a request of HTTP/1.1")
    method, target, version = (each.decode("latin-1") for each in first.groups())
    headers = _parse_headers(lines)
    return RequestHead(
        method=method,
        target=target,
        version=version,
        headers=headers,
        content_length=_find_length(headers),
    )


def _parse_headers(lines: Sequence[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise RefusedError(400, f"there are more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise RefusedError(400, "a line of the head is not a header")
        name, value = found[1].decode("ascii").lower(), found[2].strip(b" \t").decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise RefusedError(400, "a header is given twice")
        else:
            headers[name] += f",{value}"
    return headers


def _find_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of the body that the head names; see RFC 9112, sections 6.1 and 6.3."""
    length = headers.get("content-length")
    encoding = headers.get("transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise RefusedError(400, "the body has a length and chunks as well")
        if encoding.lower() != "chunked":
            raise RefusedError(400, "the transfer encoding is not chunked, the only one accepted")
        return None
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise RefusedError(400, "the length of the body is not a number")
    if len(length) > _MAX_DIGITS or int(length) > MAX_BODY_BYTES:
        raise RefusedError(413, f"the body is larger than {MAX_BODY_BYTES // 1024} KiB")
    return int(length)
