"""PostgreSQL behind PgBouncer in transaction mode: each transaction may have another session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import gevent
import psycopg
import pytest

from checkpoints import TailKey
from pillows.transports.postgres.options import PostgresOutput
from tests.conformance.steps import assert_applied, opened, rows
from tests.conformance.target import at, batch, document, gone
from tests.integration.transports.postgres_database import PostgresDatabase
from tests.servers.pgbouncer import BINARY, PgBouncer

pytestmark = pytest.mark.skipif(BINARY is None, reason="run `apt-get install pgbouncer`")

#: Pillows with tables of different columns, more than the pool has sessions.
OUTPUTS = {f"t{n}": PostgresOutput(table=f"t{n}", columns={f"c{n}": "n int"}) for n in range(5)}


@pytest.fixture
def pooled(postgres_dsn: str) -> Iterator[PostgresDatabase]:
    with PgBouncer(postgres_dsn) as server:
        yield PostgresDatabase(server.dsn, outputs=OUTPUTS)


def test_f6_pillows_share_the_sessions_of_a_pool(pooled: PostgresDatabase, postgres_dsn: str) -> None:
    with ExitStack() as stack:
        transports = {
            output: stack.enter_context(opened(pooled, output, key=TailKey(output, "couch/cases")))
            for output in OUTPUTS
        }

        def write(output: str) -> None:
            for version in range(1, 9):
                written = [document(f"d{n}", version, {"n": n + version}, output=output) for n in range(20)]
                assert_applied(transports[output].write(batch(*written, gone("x", version))))
            bad = transports[output].write(batch(document("bad", 1, {"n": "x"}, output=output)))
            assert set(bad.dead) == {"bad"}
            assert transports[output].finish_pass(1) == 0

        with gevent.Timeout(60):
            gevent.joinall([gevent.spawn(write, output) for output in OUTPUTS], raise_error=True)
    for n, output in enumerate(OUTPUTS):
        assert rows(pooled, output) == {f"d{i}": [{f"c{n}": i + 8}] for i in range(20)}
    with closing(psycopg.connect(postgres_dsn)) as direct:
        left = direct.execute("select relname from pg_class where relname like 'pillowd_stage%'").fetchall()
    assert left == []


def test_f6_settings_do_not_leak_into_the_sessions_of_a_pool(pooled: PostgresDatabase) -> None:
    settings = "select current_setting('lock_timeout') as l, current_setting('timezone') as t"
    before = pooled.query(settings)
    with opened(pooled, "t0") as transport:
        assert transport._server._is_pooled
        transport.acquire(at("1"))
        assert "PostgreSQL" in transport.check()
    assert pooled.query(settings) == before
