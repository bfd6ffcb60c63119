"""The server: accepts connections, knows who asks, and turns refusals into answers."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from gevent.server import StreamServer

from tests.servers.couchdb.auth import User
from tests.servers.couchdb.errors import Refusal
from tests.servers.couchdb.failpoints import before_answer, spoil
from tests.servers.couchdb.http import Connection, Request, Response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.node import Node
from tests.servers.couchdb.routing import route


class CouchServer:
    """Serves a node.

    Args:
        node: whose state is shown.
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, node: Node, port: int) -> None:
        self._node = node
        self._server = StreamServer(("127.0.0.1", port), self._serve, backlog=512)

    def start(self) -> int:
        """Begin to listen; return the port."""
        self._server.start()
        return int(self._server.server_port or 0)

    def serve_forever(self) -> None:
        """Serve until the process ends."""
        self._server.serve_forever()

    def stop(self) -> None:
        """Close all connections."""
        self._server.stop(timeout=0)

    def _serve(self, connection: Any, address: tuple[str, int]) -> None:
        Connection(connection, address[0], self.answer, lambda: self._node.config.largest_request).serve()

    def answer(self, request: Request) -> Response:
        """Return the answer to a request."""
        user = User()
        try:
            faults = self._node.failpoints.meeting(request)
            request.faults = faults
            before_answer(faults)
            user = request.user = self._node.auth.identify(request)
            response = spoil(faults, begun(request, route(request, self._node)))
        except Refusal as refusal:
            response = refused(refusal)
        except Exception as error:  # noqa: BLE001 - CouchDB answers 500 to what its code does not expect
            traceback.print_exc(file=sys.stderr)
            response = refused(Refusal(500, "unknown_error", repr(error), ref=True))
        if user.cookie and "Set-Cookie" not in response.headers:
            response.headers["Set-Cookie"] = user.cookie
        return response


def refused(refusal: Refusal) -> Response:
    """Return the answer that a refusal is."""
    return Response(refusal.status, dumps(refusal.content) + b"\n", dict(refusal.headers))


def begun(request: Request, response: Response) -> Response:
    """Return an answer whose first piece is made: until then it may still become an error."""
    body = response.body
    if not isinstance(body, bytes) and not request.head_only:
        first = next(body, b"")
        response.body = _after(first, body)
    return response


def _after(first: bytes, rest: Any) -> Any:
    yield first
    yield from rest
