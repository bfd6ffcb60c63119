"""SQLite's batch writer on a database in memory: what it stores, refuses and gives up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from pillows.errors import RetryableError
from pillows.models import write_version
from pillows.transports.sqlite.options import SqliteOutput
from pillows.transports.sqlite.statements import OWN_TABLES, Table
from pillows.transports.sqlite.writer import SqliteBatchWriter
from tests.conformance.target import batch, document, gone

TABLES = {
    "docs": Table(SqliteOutput(table="docs", columns={"n": "n integer"})),
    "tags": Table(SqliteOutput(table="tags", columns={"tag": "tag text"}, many=True)),
}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(OWN_TABLES)
    for table in TABLES.values():
        table.create(connection)
    yield connection
    connection.close()


def records(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    query = "select output, _id, version, deleted_at is not null from pillowd_document order by output, _id"
    return db.execute(query).fetchall()


def test_rows_and_write_versions_are_stored(db: sqlite3.Connection) -> None:
    written = batch(document("a", 3, {"n": 1}, tags=[{"tag": "x"}, {"tag": "y"}]), epoch=2)
    result = SqliteBatchWriter(db, TABLES).write(written)
    version = write_version(2, 3)
    assert (result.refused, result.dead) == ({}, {})
    assert db.execute("select _id, _version, n from docs").fetchall() == [("a", version, 1)]
    assert db.execute("select _row, tag from tags order by _row").fetchall() == [(0, "x"), (1, "y")]
    assert records(db) == [("tags", "a", version, 0)]


def test_an_equal_or_older_version_is_refused_with_the_stored_one(db: sqlite3.Connection) -> None:
    writer = SqliteBatchWriter(db, TABLES)
    writer.write(batch(document("a", 5, {"n": 5}), document("b", 5, {"n": 5})))
    result = writer.write(batch(document("a", 5, {"n": 6}), document("b", 4, {"n": 4})))
    assert result.refused == {"a": write_version(1, 5), "b": write_version(1, 5)}
    assert writer.write(batch(document("a", 6, {"n": 7}))).refused == {}
    assert db.execute("select _id, n from docs order by _id").fetchall() == [("a", 7), ("b", 5)]


def test_a_deletion_leaves_a_record_that_refuses_older_states(db: sqlite3.Connection) -> None:
    writer = SqliteBatchWriter(db, TABLES)
    writer.write(batch(document("a", 1, {"n": 1})))
    writer.write(batch(gone("a", 3)))
    assert db.execute("select count(*) from docs").fetchone() == (0,)
    assert records(db) == [(o, "a", write_version(1, 3), 1) for o in ("docs", "tags")]
    assert writer.write(batch(document("a", 2, {"n": 2}))).refused == {"a": write_version(1, 3)}
    writer.write(batch(document("a", 4, {"n": 4})))
    assert records(db) == [("tags", "a", write_version(1, 4), 1)], "the table itself has the version again"


def test_a_first_pass_records_no_document_that_never_had_rows(db: sqlite3.Connection) -> None:
    SqliteBatchWriter(db, TABLES).write(batch(gone("a", 3), first_pass=True))
    assert records(db) == []


def test_a_document_that_does_not_fit_is_dead_and_leaves_nothing(db: sqlite3.Connection) -> None:
    bad = document("bad", 1, {"n": [1]}, tags=[{"tag": "x"}])
    result = SqliteBatchWriter(db, TABLES).write(batch(bad, document("good", 1, {"n": 1})))
    assert result.dead == {"bad": "Column 'n' cannot take a value of the kind list (a jsonb column can)."}
    assert db.execute("select _id from docs").fetchall() == [("good",)]
    assert db.execute("select count(*) from tags").fetchone() == (0,)


def test_an_error_of_the_database_is_raised(db: sqlite3.Connection) -> None:
    db.execute("drop table tags")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        SqliteBatchWriter(db, TABLES).write(batch(document("a", 1, {"n": 1}, tags=[{"tag": "x"}])))


def test_a_cancelled_write_ends_before_the_next_document(db: sqlite3.Connection) -> None:
    def cancel() -> None:
        raise RetryableError("The write was cancelled.")

    with pytest.raises(RetryableError, match="cancelled"):
        SqliteBatchWriter(db, TABLES, cancel).write(batch(document("a", 1, {"n": 1})))
    assert db.execute("select count(*) from docs").fetchone() == (0,)
