"""The Elasticsearch transport against a real node, read back with requests of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

from checkpoints import TailKey
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from tests.conformance import TransportConformance
from tests.conformance.history import History
from tests.conformance.target import KEY, Target
from tests.conftest import start_for_tests
from tests.integration.transports.elasticsearch_index import Node, aside
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.tcp_proxy import Fault, TcpProxy
from tests.support.sizes import size

#: Takes any JSON: `dynamic: false` also lets through names that Elasticsearch could not index, such as "".
ANYTHING = {"dynamic": False}
MAPPINGS = {
    "docs": ANYTHING,
    "other": ANYTHING,
    "typed": {"dynamic": "strict", "properties": {"_rev": {"type": "keyword"}, "n": {"type": "integer"}}},
}


class ElasticsearchTarget(Target):
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

    def transport(self, *outputs: str, key: TailKey = KEY) -> ElasticsearchTransport:
        url = self.proxy.url if self.proxy else self.node.url
        options = {name: {"mapping": MAPPINGS[name], "deletes": self.deletes} for name in outputs}
        return self.node.transport(options, key=key, url=url)

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        return {id: [row] for id, row in self.node.read(output).items()}

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


@pytest.fixture(scope="module")
def own_server() -> Iterator[Elasticsearch]:
    """A server to restart, for all tests that do: it takes as long to start as they take."""
    with ExitStack() as stack:
        server = Elasticsearch()
        start_for_tests(stack, server)
        yield server


class ElasticsearchConformance(TransportConformance):
    deletes: str

    @pytest.fixture
    def target(
        self,
        request: pytest.FixtureRequest,
        es_prefix: str,
        tcp_proxy: Callable[[Any], TcpProxy],
    ) -> Iterator[ElasticsearchTarget]:
        if "restart" in request.node.name:
            server = request.getfixturevalue("own_server")
            yield ElasticsearchTarget(Node(server.url, es_prefix), deletes=self.deletes, server=server)
        else:
            node = Node(request.getfixturevalue("elasticsearch_url"), es_prefix)
            proxy = tcp_proxy(node.address) if "lost_connection" in request.node.name else None
            yield ElasticsearchTarget(node, deletes=self.deletes, proxy=proxy)


class TestElasticsearchConformance(ElasticsearchConformance):
    deletes = "hard"

    @pytest.mark.parametrize("seed", range(100, 100 + size(ci=2, proof=50)))
    def test_many_histories_converge(self, target: ElasticsearchTarget, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)


class TestElasticsearchTombstonesConformance(ElasticsearchConformance):
    deletes = "tombstone"
