"""The conformance suite on a real PostgreSQL server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pillows.transports.postgres.options import PostgresOutput
from tests.conformance import TransportConformance
from tests.conformance.history import History
from tests.conformance.steps import assert_applied, opened, rows
from tests.conformance.target import batch, document, gone
from tests.integration.transports.postgres_database import OUTPUTS, PostgresDatabase, address
from tests.servers.tcp_proxy import TcpProxy
from tests.support.sizes import size


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
            impatient: dict[str, Any] = {"lock_timeout": "200ms"} if busy else {}
            yield PostgresDatabase(dsn, proxy=tcp_proxy(address(dsn)) if disturbed else None, **impatient)

    @pytest.mark.parametrize("seed", range(100, 100 + size(ci=4, proof=100)))
    def test_many_histories_converge(self, target: PostgresDatabase, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)


@pytest.mark.parametrize("seed", range(size(ci=3, proof=100)))
def test_histories_of_a_shared_table_converge(postgres_dsn: str, seed: int) -> None:
    shared = {
        name: PostgresOutput.model_validate(one.model_dump(by_alias=True) | {"shared": True})
        for name, one in OUTPUTS.items()
    }
    database = PostgresDatabase(postgres_dsn, outputs=shared)
    History(database, random.Random(seed)).play(steps=60)


@pytest.mark.parametrize("seed", range(size(ci=5, proof=200)))
def test_a_first_pass_that_crashes_and_goes_back_converges(postgres_dsn: str, seed: int) -> None:
    """Batches in feed order; now and then some of the last ones come again, in order."""
    seeded = random.Random(seed)
    database = PostgresDatabase(postgres_dsn)
    versions: dict[str, int] = {}
    newest: dict[str, Any] = {}
    past = []
    with opened(database, "docs", "other") as transport:
        for _ in range(40):
            written = []
            for id in seeded.sample([f"id{n}" for n in range(40)], seeded.randint(1, 6)):
                version = versions[id] = versions.get(id, 0) + 1
                output = seeded.choice(["docs", "docs", "docs", "other"])
                row = {"v": version}
                is_gone = seeded.random() < 0.2
                newest[id] = gone(id, version) if is_gone else document(id, version, row, output=output)
                written.append(newest[id])
            past.append(batch(*written, first_pass=True))
            assert_applied(transport.write(past[-1]))
            if seeded.random() < 0.3:
                for again in past[-seeded.randint(1, 5) :]:
                    assert not transport.write(again).dead
    for output in ("docs", "other"):
        expected = {id: list(one.rows[output]) for id, one in newest.items() if output in one.rows}
        assert rows(database, output) == expected
