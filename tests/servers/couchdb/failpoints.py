"""Faults that a test orders: what the nodes of a cluster do, and what proxies make of it.

`PUT /_failpoints` takes a list of them, `GET` shows what is left, `DELETE` clears them; `--failpoint` sets one
at the start. Each is an object:

* `does`: `second_head` (a second HTTP head in the open chunked body, then silence, as when a worker's node
  dies), `bare_end` (the connection ends without a last chunk, as when the coordinator's node dies), `clean_cut`
  (a proxy ends the body in order, in the middle of a row), `silence` (no head for `seconds`, then 500, as when a
  range has no live copy), `answer` (`status`, `error`, `reason`), `rewind` (a feed begins again at 0, as after
  the loss of a copy's disk), `lag` (rows show what documents were before their last write).
* `method` and `path`: regular expressions that the whole of each must match; without them all requests do.
* `times`: how many requests it meets, 1 if not said; 0 is all of them.
* `after`: how many bytes of the body come before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class

from tests.servers.couchdb.errors import Refusal, bad_request
from tests.servers.couchdb.http import Raw, Request, Response

KINDS = ("second_head", "bare_end", "clean_cut", "silence", "answer", "rewind", "lag")
NODE_DOWN = b'{"error":"nodedown","reason":"progress not possible"}\n'
SECOND_HEAD = (
    b"HTTP/1.1 412 Precondition Failed\r\nServer: CouchDB/3.5.0 (Erlang OTP/25)\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: must-revalidate\r\n\r\n%b"
    % (len(NODE_DOWN), NODE_DOWN)
)


@dataclass(slots=True, kw_only=True)
class Failpoint:
    """One fault; see the module's text."""

    does: str
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    after: int = 0
    seconds: float = 60
    status: int = 500
    error: str = "nodedown"
    reason: str = "progress not possible"

    def meets(self, request: Request) -> bool:
        """Return whether a request has this fault."""
        path = request.target.partition("?")[0]
        return bool(re.fullmatch(self.method, request.method) and re.fullmatch(self.path, path))


class Failpoints:
    """The faults that are ordered and not used up."""

    def __init__(self) -> None:
        self._points: list[Failpoint] = []

    def set(self, value: Any) -> None:
        """Replace all faults by those of a list of objects.

        Raises:
            Refusal: one of them is none.
        """
        try:
            points = [Failpoint(**one) for one in value]
        except TypeError as error:
            raise bad_request(str(error)) from None
        if unknown := [point.does for point in points if point.does not in KINDS]:
            raise bad_request(f"no such fault: {', '.join(unknown)}")
        self._points = points

    def add(self, value: dict[str, Any]) -> None:
        """Add a fault."""
        self.set([*self.list(), value])

    def list(self) -> list[dict[str, Any]]:
        """Return what is left."""
        return [asdict(point) for point in self._points]

    def meeting(self, request: Request) -> list[Failpoint]:
        """Return the faults of a request, and count them."""
        points = [point for point in self._points if point.meets(request)]
        for point in points:
            point.times -= 1
            if point.times == 0:
                self._points.remove(point)
        return points


def before_answer(points: list[Failpoint]) -> None:
    """Do what comes instead of an answer."""
    for point in points:
        if point.does == "silence":
            gevent.sleep(point.seconds)
            raise Refusal(500, "error", "timeout")
        if point.does == "answer":
            raise Refusal(point.status, point.error, point.reason)


def spoil(points: list[Failpoint], response: Response) -> Response:
    """Return an answer with its body's faults."""
    for point in points:
        if point.does in ENDS:
            body = response.body
            pieces = iter([body]) if isinstance(body, bytes) else body
            response.body = _cut(pieces, point.after, ENDS[point.does])
    return response


def _cut(pieces: Iterator[bytes], after: int, end: Raw) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) >= after:
            yield piece[:after]
            break
        after -= len(piece)
        yield piece
    yield end


class Silent(Raw):
    """Bytes after which the connection stays open and says nothing."""

    def afterwards(self, connection: GeventSocket) -> None:
        """Wait for the client to leave."""
        with suppress(OSError):
            while connection.recv(65536):
                pass
        super().afterwards(connection)


ENDS = {"second_head": Silent(SECOND_HEAD), "bare_end": Raw(), "clean_cut": Raw(b"0\r\n\r\n")}
