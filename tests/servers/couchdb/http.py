"""HTTP as CouchDB's mochiweb speaks it: requests, answers, and the loop of a connection.

A library would not let a test write arbitrary bytes into the middle of an answer; this module does.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any, BinaryIO

import gevent
from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class

from tests.servers.couchdb.errors import Refusal, bad_request, invalid_json
from tests.servers.couchdb.jsontext import dumps, loads

SERVER = "CouchDB/3.5.0 (Erlang OTP/25)"
LONGEST_LINE = 8192
PERCENT = re.compile(rb"%([0-9a-fA-F]{2})")
DRAINED = 64 * 1024 * 1024  # of a body that is refused unread
REPHRASED = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request Entity Too Large"}


@dataclass(slots=True, kw_only=True)
class Request:
    """A request.

    Attributes:
        method: as it counts: HEAD is GET.
        head_only: whether it was HEAD.
        target: path and query as they came.
        path: the parts between the slashes, decoded.
        query: names and values in their order.
        headers: by lower-case names.
        content: the body as it came.
        address: the client's.
        too_large: whether the body was refused unread.
        user: the authenticated user.
        faults: the failpoints that meet it.
    """

    method: str
    head_only: bool
    target: str
    path: list[str]
    query: list[tuple[str, str]]
    headers: dict[str, str]
    content: bytes
    address: str
    too_large: bool = False
    user: Any = None
    faults: list[Any] = field(default_factory=list)

    def value(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)

    def is_true(self, name: str) -> bool:
        """Return whether a query parameter is `true`, in one of its values."""
        return (name, "true") in self.query

    def body(self) -> bytes:
        """Return the body, unpacked."""
        if self.too_large:
            raise Refusal(413, "too_large", "the request entity is too large")
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "gzip":
            try:
                return zlib.decompress(self.content, 31)
            except zlib.error:
                raise bad_request("Request body is not properly gzipped.") from None
        if encoding != "identity":
            raise Refusal(415, "bad_content_type", f"{encoding} is not a supported content encoding.")
        return self.content

    def json(self) -> Any:
        """Return the body's JSON value."""
        body = self.body()
        if not body:
            raise invalid_json()
        return loads(body)

    def json_object(self) -> dict[str, Any]:
        """Return the object that the body must be, sent as JSON."""
        self.want_json()
        value = self.json()
        if not isinstance(value, dict):
            raise bad_request("Request body must be a JSON object")
        return value

    def want_json(self) -> None:
        """Refuse a body that is not said to be JSON."""
        if self.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refusal(415, "bad_content_type", "Content-Type must be application/json")

    def accepts(self, kind: str) -> bool:
        """Return whether the client accepts a content type; without `Accept`, it accepts every type."""
        given = self.headers.get("accept", "*/*")
        wanted = [part.partition(";")[0].strip() for part in given.split(",")]
        return any(one in ("*/*", kind, f"{kind.partition('/')[0]}/*") for one in wanted)

    def names(self, kind: str) -> bool:
        """Return whether the client asks for a content type by its name."""
        return kind in self.headers.get("accept", "")


@dataclass(slots=True)
class Response:
    """An answer.

    Attributes:
        status: HTTP status.
        body: all of it, or the pieces as which it is sent in chunks.
        headers: in addition to those that all answers have; an empty one takes one of them away.
    """

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """Return an answer in JSON; underscores in the names of headers become hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(status, dumps(value) + b"\n", named)


def decode(text: bytes) -> str:
    """Return a part of a path or query as mochiweb decodes it: malformed percent codes stay."""
    data = PERCENT.sub(lambda found: bytes((int(found[1], 16),)), text.replace(b"+", b" "))
    return data.decode(errors="surrogateescape") if b"\xed" not in data else _with_halves(data)


def _with_halves(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode(errors="surrogateescape")


def parse_query(text: str) -> list[tuple[str, str]]:
    """Return the parameters of a query."""
    pairs = (part.partition("=") for part in re.split("[&;]", text) if part)
    return [(decode(name.encode("latin-1")), decode(value.encode("latin-1"))) for name, _, value in pairs]


class Malformed(Exception):
    """The bytes are not a request that mochiweb passes on."""


def read_request(reader: BinaryIO, connection: GeventSocket, address: str, largest: int) -> Request | None:
    """Read one request; return None at the end of the connection."""
    line = reader.readline(LONGEST_LINE + 1)
    while line in (b"\r\n", b"\n"):
        line = reader.readline(LONGEST_LINE + 1)
    if not line:
        return None
    words = line.decode("latin-1").split()
    if len(line) > LONGEST_LINE or len(words) != 3:
        raise Malformed
    headers = _read_headers(reader)
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    content, too_large = _read_content(reader, headers, largest)
    method, target = words[0], words[1]
    if method == "POST":
        method = headers.get("x-http-method-override", method)
    path, _, query = target.partition("?")
    if path.startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[3]
    return Request(
        method="GET" if method == "HEAD" else method,
        head_only=method == "HEAD",
        target=target,
        path=[decode(part.encode("latin-1")) for part in path.split("/") if part],
        query=parse_query(query),
        headers=headers,
        content=content,
        address=address,
        too_large=too_large,
    )


def _read_headers(reader: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    while line := reader.readline(LONGEST_LINE * 8).strip():
        name, _, text = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = text.strip()
    return headers


def _read_content(reader: BinaryIO, headers: dict[str, str], largest: int) -> tuple[bytes, bool]:
    """Return the body, or nothing and True where it is too large."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces: list[bytes] = []
        while size := int(reader.readline().split(b";")[0] or b"0", 16):
            pieces.append(reader.read(size))
            reader.readline()
        while reader.readline().strip():
            pass
        content = b"".join(pieces)
        return (b"", True) if len(content) > largest else (content, False)
    length = int(headers.get("content-length") or 0)
    if length <= largest:
        return reader.read(length) if length else b"", False
    reader.read(min(length, DRAINED))  # a client that is still sending would not see the answer
    return b"", True


class Connection:
    """One client's connection.

    Args:
        connection: its socket.
        address: the client's.
        answer: returns the answer to a request.
        largest: returns how large a body may be.
    """

    def __init__(
        self,
        connection: GeventSocket,
        address: str,
        answer: Callable[[Request], Response],
        largest: Callable[[], int],
    ) -> None:
        self._socket = connection
        self._address = address
        self._answer = answer
        self._largest = largest

    def serve(self) -> None:
        """Answer requests until the client leaves."""
        reader: BinaryIO = self._socket.makefile("rb", 65536)  # type: ignore[assignment]
        try:
            # CouchDB sets it, too: a line must not wait until the client acknowledges the one before.
            self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            while (request := self._next(reader)) is not None:
                self.send(request, self._answer(request))
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (OSError, ValueError):
            pass  # the client left, or sent something else than HTTP
        finally:
            reader.close()
            self._socket.close()

    def _next(self, reader: BinaryIO) -> Request | None:
        try:
            return read_request(reader, self._socket, self._address, self._largest())
        except Malformed:
            self._socket.sendall(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return None

    def send(self, request: Request, response: Response) -> None:
        """Send an answer."""
        body = response.body
        if isinstance(body, bytes):
            head = _head(response, {"Content-Length": str(len(body))})
            self._socket.sendall(head if request.head_only else head + body)
            return
        if request.head_only:
            self._socket.sendall(_head(response, {}))
            return
        waiting = [_head(response, {"Transfer-Encoding": "chunked"})]
        for piece in body:
            if isinstance(piece, Raw):
                self._socket.sendall(b"".join(waiting) + piece)
                piece.afterwards(self._socket)
                return
            if not piece:
                continue
            waiting.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            self._socket.sendall(b"".join(waiting))
            waiting.clear()
            gevent.sleep(0)
        self._socket.sendall(b"".join(waiting) + b"0\r\n\r\n")


class Raw(bytes):
    """Bytes that break out of an answer's chunks; nothing of the answer follows them."""

    def afterwards(self, connection: GeventSocket) -> None:
        """Treat the connection as the fault does; this one closes it."""
        connection.close()
        raise OSError("the connection was ended on purpose")


def _head(response: Response, more: dict[str, str]) -> bytes:
    phrase = REPHRASED.get(HTTPStatus(response.status)) or HTTPStatus(response.status).phrase
    fields = {
        "X-CouchDB-Body-Time": "0",
        "X-Couch-Request-ID": os.urandom(5).hex(),
        "Server": SERVER,
        "Date": formatdate(usegmt=True),
        "Content-Type": "application/json",
        "Cache-Control": "must-revalidate",
        **response.headers,
        **more,
    }
    if response.status == HTTPStatus.NOT_MODIFIED:
        fields.pop("Content-Length", None)
    lines = [f"{name}: {text}\r\n" for name, text in fields.items() if text]
    return f"HTTP/1.1 {response.status} {phrase}\r\n{''.join(lines)}\r\n".encode("latin-1")
