"""An HTTP server that plays given bytes, for what no real server can be made to do.

::

    server.on("GET", "/db", json_reply({"db_name": "db", ...}))
    server.on("GET", "/db/_changes", [head(chunked=True), chunk(b'{"seq":1'), RESET], [HANG])

A script is a list of bytes, which are sent as they stand, and of steps: `Pause`, `CLOSE`, `RESET`, `HANG`.
Each request of a route plays the route's next script; the last one is played for all later requests.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from io import BufferedReader
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import gevent
from gevent.event import Event
from gevent.server import StreamServer
from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class


class Ending(Enum):
    """How a connection goes on after a script's bytes, where not by waiting for the next request."""

    CLOSE = auto()
    RESET = auto()
    HANG = auto()


CLOSE, RESET, HANG = Ending.CLOSE, Ending.RESET, Ending.HANG


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence within a script, in seconds or until an event is set."""

    until: float | Event


Step = bytes | Pause | Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The request of a client.

    Attributes:
        method: GET, POST ...
        path: decoded, without the query.
        query: the parameters; of repeated ones the last.
        headers: by lower-case names.
        body: as it came.
        raw_target: path and query as they came.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    raw_target: str

    def json(self) -> Any:
        """Returns the body, decoded."""
        return json.loads(self.body)


Script = Sequence[Step] | bytes
Play = Script | Callable[[Request], Script]


def head(
    status: int = 200,
    *,
    chunked: bool = False,
    length: int | None = None,
    content_type: str = "application/json",
    **headers: str,
) -> bytes:
    """Returns the bytes of a response's head; underscores in the names of headers become hyphens."""
    fields = {
        "Content-Type": content_type,
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }
    if chunked:
        fields["Transfer-Encoding"] = "chunked"
    if length is not None:
        fields["Content-Length"] = str(length)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {fields[name]}" for name in fields),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """Returns one chunk of a chunked body; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = chunk(b"")


def json_reply(body: object, status: int = 200, **headers: Any) -> bytes:
    """Returns a whole response with a JSON body."""
    text = json.dumps(body).encode() + b"\n"
    return head(status, length=len(text), **headers) + text


def chunked_reply(*parts: bytes, status: int = 200) -> bytes:
    """Returns a whole response whose body comes in the given chunks."""
    return head(status, chunked=True) + b"".join(chunk(part) for part in parts) + LAST_CHUNK


@dataclass(slots=True)
class _Route:
    method: str
    path: str
    plays: list[Play] = field(default_factory=list)

    def next(self) -> Play:
        return self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]


class ScriptedServer:
    """The server; a context manager.

    Attributes:
        requests: every request, in the order in which they arrived.
        unexpected: those that no route knew; they were answered with 500.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.unexpected: list[Request] = []
        self._routes: list[_Route] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return "http://{}:{}".format(*self.address)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", int(self._server.server_port or 0))

    def on(self, method: str, path: str, *plays: Play) -> Self:
        """Adds scripts for a path (exact, decoded, without query); a second call replaces what is left."""
        self._routes = [route for route in self._routes if (route.method, route.path) != (method, path)]
        self._routes.append(_Route(method, path, list(plays)))
        return self

    def requests_of(self, method: str, path: str) -> list[Request]:
        """Returns the requests of one route."""
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(timeout=0)

    def _serve(self, connection: GeventSocket, _address: object) -> None:
        reader = connection.makefile("rb")
        with suppress(
            OSError
        ):  # the client may leave in the middle of a script; that is its part of the test
            while (request := _read_request(reader)) is not None:
                self.requests.append(request)
                if not self._play(connection, self._script_for(request)):
                    break
        reader.close()
        connection.close()

    def _script_for(self, request: Request) -> Script:
        for route in self._routes:
            if (route.method, route.path) == (request.method, request.path):
                play = route.next()
                return play(request) if callable(play) else play
        self.unexpected.append(request)
        return json_reply({"error": "unscripted", "reason": f"{request.method} {request.raw_target}"}, 500)

    def _play(self, connection: GeventSocket, script: Script) -> bool:
        """Plays one script; returns whether the connection can take another request."""
        for step in [script] if isinstance(script, bytes) else script:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, Pause):
                _pause(step)
            else:
                _end(connection, step)
                return False
        return True


def _pause(pause: Pause) -> None:
    if isinstance(pause.until, Event):
        pause.until.wait()
    else:
        gevent.sleep(pause.until)


def _end(connection: GeventSocket, ending: Ending) -> None:
    if ending is Ending.HANG:
        while connection.recv(4096):  # until the client gives up
            pass
    elif ending is Ending.RESET:
        gevent.sleep(0.05)  # an RST overtakes bytes that the client has not read yet
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        connection.shutdown(socket.SHUT_RDWR)


def _read_request(reader: BufferedReader) -> Request | None:
    line = reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split()
    headers = {}
    while text := reader.readline().decode("latin-1").strip():
        name, _, content = text.partition(":")
        headers[name.lower()] = content.strip()
    parts = urlsplit(target)
    return Request(
        method=method,
        path=unquote(parts.path),
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers=headers,
        body=reader.read(int(headers.get("content-length", 0))),
        raw_target=target,
    )
