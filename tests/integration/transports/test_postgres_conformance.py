"""The conformance suite on a real PostgreSQL server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance import TransportConformance
from tests.conformance.history import History
from tests.integration.transports.postgres_database import PostgresDatabase, address
from tests.servers.tcp_proxy import TcpProxy
from tests.sizes import size


class TestPostgresConformance(TransportConformance):
    @pytest.fixture
    def target(
        self, request: pytest.FixtureRequest, tcp_proxy: Callable[[Any], TcpProxy]
    ) -> Iterator[PostgresDatabase]:
        if "restart" in request.node.name:
            server = request.getfixturevalue("postgres_server")()
            yield PostgresDatabase(server.dsn, server=server)
        else:
            dsn = request.getfixturevalue("postgres_dsn")
            busy = "busy" in request.node.name
            disturbed = busy or "lost_connection" in request.node.name
            impatient = {"lock_timeout": "200ms"} if busy else {}
            yield PostgresDatabase(dsn, proxy=tcp_proxy(address(dsn)) if disturbed else None, **impatient)

    @pytest.mark.parametrize("seed", range(100, 100 + size(ci=4, proof=100)))
    def test_many_histories_converge(self, target: PostgresDatabase, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)
