"""An output that is gone is refused until a reset: made anew without a word, it would stay nearly empty."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from checkpoints import ConfigDigest
from pillows.transports.base import Transport
from pillows.transports.common.columns import TableOutput
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.target import KEY, at, batch, document
from tests.integration.transports.postgres_database import options
from tests.integration.transports.search_index import ANYTHING, Node


def goes_on_after_a_reset_alone(make: Callable[[], Transport], drop: Callable[[], object]) -> None:
    """Loses the output `visits` of two, and looks at what each start says."""
    transport = make()
    transport.open()
    written = replace(
        at("5-x"), changes=5, digest=ConfigDigest(outputs=f'[["t","T","{transport.outputs_digest()}"]]')
    )
    transport.acquire(written)
    transport.write(batch(document("a", 1, {"n": 1}, output="visits")))
    transport.close()
    assert make_and_close(make) == []

    drop()
    assert make_and_close(make) == ["visits"]
    assert make_and_close(make) == ["visits"]  # and no start takes it for found again

    transport = make()
    transport.open()
    transport.acquire(replace(at("0", epoch=2), edits=1))
    transport.write(batch(document("a", 1, {"n": 1}, output="visits"), epoch=2))
    transport.close()
    assert make_and_close(make) == []


def make_and_close(make: Callable[[], Transport]) -> list[str]:
    """Which outputs a start finds lost."""
    transport = make()
    try:
        state = transport.open()
        assert state.epoch is not None
        return list(state.missing_outputs)
    finally:
        transport.close()


def test_a_table_of_sqlite_that_was_dropped(tmp_path: Path) -> None:
    path = tmp_path / "cases.db"

    def drop() -> None:
        with sqlite3.connect(path) as db:
            db.execute("drop table visits")
        db.close()

    outputs = {"cases": TableOutput(table="cases"), "visits": TableOutput(table="visits")}
    goes_on_after_a_reset_alone(
        lambda: SqliteTransport("db", KEY, SqliteConnection(path=path), outputs), drop
    )


def test_a_table_of_postgresql_that_was_dropped(postgres_dsn: str) -> None:
    def drop() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("drop table visits")

    outputs = {"cases": PostgresOutput(table="cases"), "visits": PostgresOutput(table="visits")}
    goes_on_after_a_reset_alone(
        lambda: PostgresTransport("warehouse", KEY, options(postgres_dsn), outputs), drop
    )


def test_one_index_of_two_that_was_deleted(node: Node) -> None:
    outputs = {"cases": ANYTHING, "visits": ANYTHING}

    def drop() -> None:
        (index,) = node.indices("visits")
        node.ask("DELETE", index)

    goes_on_after_a_reset_alone(lambda: node.transport(outputs), drop)


@pytest.mark.parametrize("added", [True, False])
def test_a_table_that_is_new_in_the_configuration_was_not_lost(tmp_path: Path, added: bool) -> None:
    """The checkpoint was made without it: what that means for the others is told by the configuration."""
    outputs = {"cases": TableOutput(table="cases"), "visits": TableOutput(table="visits")}
    few = {"cases": outputs["cases"]}
    before, after = (few, outputs) if added else (outputs, few)
    connection = SqliteConnection(path=tmp_path / "cases.db")
    transport = SqliteTransport("db", KEY, connection, before)
    transport.open()
    transport.acquire(replace(at("5-x"), changes=5, digest=ConfigDigest(outputs=transport.outputs_digest())))
    transport.close()
    assert make_and_close(lambda: SqliteTransport("db", KEY, connection, after)) == []
