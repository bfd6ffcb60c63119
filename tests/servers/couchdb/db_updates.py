"""`_db_updates`: the feed of `_global_changes`, whose documents are named after events."""

from __future__ import annotations

from collections.abc import Iterator

from tests.servers.couchdb.auth import check_server_admin
from tests.servers.couchdb.changes import Changes, read_asked, respond, start_positions
from tests.servers.couchdb.filters import Filter
from tests.servers.couchdb.http import Request, Response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.node import EVENTS, Node


class Updates(Changes):
    """The rows of `_db_updates`."""

    def _content(self, doc_id: str, packed: bytes) -> bytes | None:
        del packed
        event, _, name = doc_id.partition(":")
        return b'"db_name":%b,"type":%b}' % (dumps(name), dumps(event))

    def _end(self) -> bytes:
        return b'{"last_seq":"%b"}' % self._tokens.token()

    def continuous(self, node: Node) -> Iterator[bytes]:
        """Yield rows; nothing comes before the first one."""
        pieces = super().continuous(node)
        first = next(pieces)
        if first != b"\n":
            yield first
        yield from pieces


def db_updates(request: Request, node: Node) -> Response:
    """Answer `GET /_db_updates`."""
    check_server_admin(request.user)
    database = node.database(EVENTS)
    asked = read_asked(request)
    positions = start_positions(database, request.value("since") or "0")
    return respond(request, node, database, asked, Updates(database, asked, Filter(), positions))
