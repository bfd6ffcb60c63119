"""A search cluster as the conformance suite sees it, read back with requests of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import psutil
import pytest

from checkpoints import TailKey
from pillows.transports.common.search.transport import SearchTransport
from tests.conformance import TransportConformance
from tests.conformance.target import KEY, Target
from tests.integration.transports.search_index import Node, aside
from tests.servers.tcp_proxy import Fault, TcpProxy

#: Takes any JSON: `dynamic: false` also lets through names that no server could index, such as "".
ANYTHING = {"dynamic": False}
MAPPINGS = {
    "docs": ANYTHING,
    "other": ANYTHING,
    "typed": {"dynamic": "strict", "properties": {"_rev": {"type": "keyword"}, "n": {"type": "integer"}}},
}


class SearchTarget(Target):
    has_many = False
    busy_faults = ("flood", "blocked", "closed")
    cut_places = ("before", "after", "reset", "in-answer")

    def __init__(
        self, node: Node, *, deletes: str, server: Any = None, proxy: TcpProxy | None = None
    ) -> None:
        self.node = node
        self.deletes = deletes
        self.remembers_deletes = deletes == "tombstone"
        self.server = server
        self.proxy = proxy

    def transport(self, *outputs: str, key: TailKey = KEY) -> SearchTransport:
        url = self.proxy.url if self.proxy else self.node.url
        options = {name: {"mapping": MAPPINGS[name], "deletes": self.deletes} for name in outputs}
        return self.node.transport(options, key=key, url=url)

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        found = self.node.read(output).items()
        return {id: [row] for id, row in found if not (self.deletes == "mark" and "_deleted_at" in row)}

    def write_version(self, output: str, id: str) -> int | None:
        return self.node.write_version(output, id)

    def open_connections(self) -> int:
        port = (self.proxy or self.server or self.node).port
        connections = psutil.Process().net_connections("tcp")
        return sum(c.status == "ESTABLISHED" and bool(c.raddr) and c.raddr.port == port for c in connections)

    def restart(self) -> None:
        self.server.restart()

    @contextmanager
    def busy(self, fault: str) -> Iterator[None]:
        with aside(self.node, fault):
            yield

    @contextmanager
    def cut(self, place: str) -> Iterator[None]:
        assert self.proxy
        faults = {
            "before": Fault(kind="cut", direction="to_server", after_bytes=0),
            "after": Fault(kind="cut", direction="to_client", after_bytes=0),
            "reset": Fault(kind="reset", direction="to_server", after_text=b"_bulk"),
            "in-answer": Fault(kind="cut", direction="to_client", after_text=b'"items"'),
        }
        self.proxy.fail(faults[place])
        self.proxy.cut()
        yield


class SearchConformance(TransportConformance):
    """The suite with one way to delete. A module of tests has a fixture `own_server`, to be restarted."""

    kind: ClassVar[type[SearchTransport]]
    deletes: ClassVar[str]

    @pytest.fixture
    def target(
        self,
        request: pytest.FixtureRequest,
        es_prefix: str,
        tcp_proxy: Callable[[Any], TcpProxy],
    ) -> Iterator[SearchTarget]:
        if "restart" in request.node.name:
            server = request.getfixturevalue("own_server")
            node = Node(server.url, es_prefix, self.kind)
            yield SearchTarget(node, deletes=self.deletes, server=server)
        else:
            node = Node(request.getfixturevalue(f"{self.kind.TYPE}_url"), es_prefix, self.kind)
            proxy = tcp_proxy(node.address) if "lost_connection" in request.node.name else None
            yield SearchTarget(node, deletes=self.deletes, proxy=proxy)
