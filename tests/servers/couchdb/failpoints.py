"""Faults that a test orders: those of a cluster's nodes, and those of proxies.

`PUT /_failpoints` takes a list of faults, `GET` shows the ones that are not used up, `DELETE` clears them;
`--failpoint` sets one at the start. A fault is an object:

* `does` is one of

  * `second_head`: a second HTTP head in the open chunked body, then silence (a worker's node dies);
  * `bare_end`: the connection closes without a last chunk (the coordinator's node dies);
  * `clean_cut`: the body ends in order, in the middle of a row (a proxy cuts it);
  * `silence`: nothing for `seconds`, then 500 (a range has no live copy);
  * `answer`: `status`, `error` and `reason` (412, 500 `nodedown` and others);
  * `rewind`: a feed begins again at 0, or only one `shard` of it does (a copy's disk is lost);
  * `lag`: rows show documents as they were before their last write (a copy lags).

* `method` and `path`: regular expressions that the whole of each must match; by default all requests do.
* `times`: how many requests it meets, 1 by default; 0 meets all.
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
    shard: int | None = None

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
        self.set([*self.left(), value])

    def left(self) -> list[dict[str, Any]]:
        """Return the faults that are not used up."""
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
    """Delay the request or refuse it, as its faults demand."""
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


def rewound(points: list[Failpoint], positions: list[int]) -> list[int]:
    """Return where a feed begins."""
    for point in points:
        if point.does == "rewind":
            positions = [0 if point.shard in (None, shard) else at for shard, at in enumerate(positions)]
    return positions


class Silent(Raw):
    """Bytes after which the connection stays open and says nothing."""

    def afterwards(self, connection: GeventSocket) -> None:
        """Wait for the client to leave."""
        with suppress(OSError):
            while connection.recv(65536):
                pass
        super().afterwards(connection)


ENDS = {"second_head": Silent(SECOND_HEAD), "bare_end": Raw(), "clean_cut": Raw(b"0\r\n\r\n")}
