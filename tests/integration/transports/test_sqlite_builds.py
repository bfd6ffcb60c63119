"""Builds of tables in an SQLite file: what goes along, and what is in the way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pillows.errors import ConfigError
from pillows.options import Build
from pillows.transports.common.builds import Exchange
from pillows.transports.common.columns import TableOutput
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import KEY, at, batch, document

TO_SECOND = Exchange(key=KEY, outgoing=1, incoming=2)
SECOND = Build(number=2, live=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target.db"


def make(path: Path, build: Build = Build(), **columns: str) -> SqliteTransport:  # noqa: B008
    key = KEY if build.live else TO_SECOND.shadow
    output = TableOutput(table="cases", columns=columns).of_build(build)
    return SqliteTransport("local", key, SqliteConnection(path=path), {"docs": output})


def fill(transport: SqliteTransport, **row: object) -> None:
    transport.open()
    transport.acquire(at("0"))
    assert_applied(transport.write(batch(document("a", 1, row))))
    transport.close()


def query(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


def test_a_view_shows_the_live_build_and_indexes_go_along(path: Path) -> None:
    fill(make(path, name="name text", old="old text"), name="old", old="o")
    for statement in (
        "CREATE UNIQUE INDEX \"by name\" ON cases (name) WHERE name > ''",
        "create index by_old on cases (old)",
        "create view overview as select name from cases",
    ):
        query(path, statement)
    changed: Any = {"name": "name text", "new": "new text"}
    fill(make(path, SECOND, **changed), name="new", new="x")
    make(path, **changed).make_switch().exchange(TO_SECOND)
    assert query(path, "select name from overview") == [("new",)]
    indexes = "select name from sqlite_master where type = 'index' and tbl_name = 'cases' and sql not null"
    assert query(path, indexes) == [("by name__2",)]
    make(path, **changed).make_switch().exchange(TO_SECOND.reverse())
    assert query(path, "select name from overview") == [("old",)]


def test_a_comparison_during_an_exchange_knows_the_versions_of_the_build_that_it_reads(path: Path) -> None:
    def make_children(build: Build = Build()) -> SqliteTransport:  # noqa: B008
        output = TableOutput(table="cases", columns={"n": "n integer"}, many=True).of_build(build)
        key = KEY if build.live else TO_SECOND.shadow
        return SqliteTransport("local", key, SqliteConnection(path=path), {"docs": output})

    fill(make_children(), n=1)
    with closing(make_children(SECOND)) as shadow:
        shadow.open()
        shadow.acquire(at("0"))
        assert_applied(shadow.write(batch(document("a", 2, {"n": 2}))))
        ((newer,),) = shadow.stored("docs")
    with closing(make_children()) as reader:
        reader.open()
        ((older,),) = reader.stored("docs")
        assert older.write_version != newer.write_version
        make_children().make_switch().exchange(TO_SECOND)
        assert list(reader.stored("docs")) == [[newer]]


def test_a_trigger_is_in_the_way(path: Path) -> None:
    fill(make(path, name="name text"), name="old")
    fill(make(path, SECOND, name="name text"), name="new")
    query(path, "create trigger stamp after insert on cases begin select 1; end")
    switch = make(path, name="name text").make_switch()
    assert switch.list_obstacles() == ["trigger stamp hangs on cases"]
    with pytest.raises(ConfigError, match="trigger stamp"):
        switch.exchange(TO_SECOND)
    assert query(path, "select name from cases") == [("old",)]


def test_rows_are_not_copied(path: Path) -> None:
    with pytest.raises(ConfigError, match="does not copy rows"):
        make(path).make_switch().exchange(TO_SECOND, copies=True)


def test_a_table_that_has_the_name_of_a_build_by_chance_is_neither_written_nor_dropped(path: Path) -> None:
    fill(make(path, name="name text"), name="mine")
    theirs = SqliteTransport(
        "local",
        KEY,
        SqliteConnection(path=path),
        {"docs": TableOutput(table="cases__2", columns={"name": "name text"})},
    )
    fill(theirs, name="theirs")
    shadow = make(path, SECOND, name="name text")
    with pytest.raises(ConfigError, match="'cases__2' exists, and is not a build of 'cases'"):
        shadow.open()
    shadow.close()
    with pytest.raises(ConfigError, match=r"cases__2 is not a build of cases"):
        make(path, name="name text").make_switch().exchange(TO_SECOND)
    shadow.make_switch().drop()
    assert query(path, "select name from cases__2") == [("theirs",)]
