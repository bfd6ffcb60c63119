"""Builds of tables in PostgreSQL: what goes along, what is in the way, and what readers notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pillows.errors import ConfigError, RetryableError
from pillows.options import Build
from pillows.transports.common.builds import Exchange
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import KEY, at, batch, document
from tests.integration.transports.postgres_database import PostgresDatabase, options

TO_SECOND = Exchange(key=KEY, outgoing=1, incoming=2)
SECOND = Build(number=2, live=False)


@pytest.fixture
def database(postgres_dsn: str) -> PostgresDatabase:
    return PostgresDatabase(postgres_dsn)


def make(database: PostgresDatabase, build: Build = Build(), **columns: Any) -> PostgresTransport:  # noqa: B008
    key = KEY if build.live else TO_SECOND.shadow
    output = PostgresOutput(table="cases", columns=columns).of_build(build)
    return PostgresTransport("warehouse", key, options(database.dsn), {"docs": output})


def fill(transport: PostgresTransport, **row: object) -> None:
    try:
        transport.open()
        transport.acquire(at("0"))
        assert_applied(transport.write(batch(document("a", 1, row), document("b", 1, row))))
    finally:
        transport.close()


@contextmanager
def polling(database: PostgresDatabase, query: str, every_seconds: float = 0.02) -> Iterator[list[float]]:
    """A reader in a thread of its own; how long each of its queries took."""
    stop, took, failures = threading.Event(), [], []

    def poll() -> None:
        with psycopg.connect(database.dsn, autocommit=True) as reader:
            while not stop.wait(every_seconds):
                began = time.monotonic()
                try:
                    reader.execute(query)
                except psycopg.Error as error:
                    failures.append(error)
                took.append(time.monotonic() - began)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert took


def test_indexes_checks_owner_and_grants_go_along_and_changed_columns_do_not(
    database: PostgresDatabase,
) -> None:
    fill(make(database, name="name text", size="size int", old="old text"), name="n", size=1, old="o")
    database.query("create index by_name on cases (name); create index by_old on cases (old)")
    database.query("alter table cases add check (size < 100), add stamp timestamptz default now()")
    database.query("create role reader; create role owner; grant owner to current_user")
    database.query(
        "grant select on cases to reader; grant update (name) on cases to reader with grant option"
    )
    database.query("alter table cases owner to owner")
    changed: Any = {"name": "name text", "size": "size bigint", "new": "new text"}
    try:
        fill(make(database, SECOND, **changed), name="n", size=2, new="x")
        make(database, **changed).make_switch().exchange(TO_SECOND)
        (table,) = database.query(
            "select pg_get_userbyid(relowner) as owner, relacl::text as grants,"
            " (select array_agg(attname::text order by attname) from pg_attribute"
            "  where attrelid = c.oid and attnum > 0 and not attisdropped) as columns,"
            " (select count(*) from pg_index where indrelid = c.oid) as indexes,"
            " (select count(*) from pg_constraint where conrelid = c.oid and contype = 'c') as checks"
            " from pg_class c where oid = 'cases'::regclass"
        )
        assert table["owner"] == "owner"
        assert "reader=r/" in table["grants"]
        assert table["columns"] == ["_id", "_rev", "_version", "name", "new", "size", "stamp"]
        assert (table["indexes"], table["checks"]) == (2, 1), "the primary key and by_name; size < 100"
        query = "select attacl::text as a from pg_attribute where attrelid = 'cases'::regclass and attnum = 4"
        columns = database.query(query)
        assert "reader=w" in columns[0]["a"], "of the column name"
    finally:
        database.query("reassign owned by owner to current_user; drop owned by owner, reader")
        database.query("drop role reader, owner")


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("create view overview as select * from cases", "view overview"),
        ("create materialized view daily as select * from cases", "materialized view daily"),
        (
            "create table visits (case_id text, constraint of_case foreign key (case_id) references cases)",
            "constraint of_case on table visits",
        ),
        (
            "alter table cases add constraint kind foreign key (name) references cases not valid",
            "constraint kind on table cases",
        ),
        (
            "create trigger s before update on cases execute function suppress_redundant_updates_trigger()",
            "trigger s on table cases",
        ),
        ("create policy mine on cases using (true)", "policy mine on table cases"),
        ("alter table cases enable row level security", "row-level security"),
        ("create publication changes for table cases", "publication changes"),
        ("create publication everything for all tables", "publication everything of all tables"),
        ("create publication all_public for tables in schema public", "publication all_public of its schema"),
        ("create table part () inherits (cases)", "table part, which inherits"),
    ],
)
def test_what_would_not_follow_is_named_and_nothing_is_exchanged(
    database: PostgresDatabase, made: str, named: str
) -> None:
    fill(make(database, name="name text"), name="old")
    fill(make(database, SECOND, name="name text"), name="new")
    database.query(made)
    switch = make(database, name="name text").make_switch()
    (obstacle,) = switch.list_obstacles()
    assert named in obstacle
    assert obstacle.endswith("hangs on public.cases")
    with pytest.raises(ConfigError, match="hangs on public"):
        switch.exchange(TO_SECOND)
    assert {row["name"] for row in database.query("select name from cases")} == {"old"}


def test_copied_rows_reach_those_who_hang_on_the_table(database: PostgresDatabase) -> None:
    fill(make(database, name="name text"), name="old")
    fill(make(database, SECOND, name="name text", size="size int"), name="new", size=3)
    database.query("create view overview as select name from cases")
    switch = make(database, name="name text", size="size int").make_switch()
    assert switch.list_obstacles(copies=True) == []
    assert switch.estimate_copy_seconds() >= 0
    for _ in range(2):
        switch.exchange(TO_SECOND, copies=True)
    assert [row["name"] for row in database.query("select name from overview")] == ["new", "new"]
    assert database.query("select to_regclass('cases__2') as t, to_regclass('cases__1') as o") == [
        {"t": None, "o": None}
    ]
    live = make(database, Build(number=2), name="name text", size="size int")
    live.open()
    live.acquire(at("1"))
    assert live.write(batch(document("a", 1, {"name": "old"}))).refused.keys() == {"a"}
    live.close()


def test_a_table_that_others_refer_to_is_not_emptied(database: PostgresDatabase) -> None:
    fill(make(database, name="name text"), name="old")
    database.query("create table visits (case_id text references cases)")
    (obstacle,) = make(database, name="name text").make_switch().list_obstacles(copies=True)
    assert "constraint visits_case_id_fkey on table visits" in obstacle


def test_a_long_report_is_not_waited_for_and_blocks_no_reader_for_long(database: PostgresDatabase) -> None:
    fill(make(database, name="name text"), name="old")
    fill(make(database, SECOND, name="name text"), name="new")
    switch = make(database, name="name text").make_switch()
    with polling(database, "select count(*) from cases") as took, psycopg.connect(database.dsn) as report:
        report.execute("select count(*) from cases")
        for _ in range(3):
            with pytest.raises(RetryableError, match="55P03"):
                switch.exchange(TO_SECOND)
        report.rollback()
        switch.exchange(TO_SECOND)
    assert max(took) <= 0.5  # 0.1 s for the lock; the rest is the machine's
    assert {row["name"] for row in database.query("select name from cases")} == {"new"}


def test_a_shared_table_is_not_switched(database: PostgresDatabase) -> None:
    output = PostgresOutput(table="cases", shared=True)
    shared = PostgresTransport("warehouse", KEY, options(database.dsn), {"docs": output})
    fill(shared, n=1)
    (obstacle,) = shared.make_switch().list_obstacles()
    assert "shared with other sources" in obstacle


def test_a_name_too_long_for_a_number_is_an_obstacle(database: PostgresDatabase) -> None:
    output = PostgresOutput(table="c" * 61)
    one = PostgresTransport("warehouse", KEY, options(database.dsn), {"docs": output})
    fill(one, n=1)
    (obstacle,) = one.make_switch().list_obstacles()
    assert "too long" in obstacle


def test_a_table_that_has_the_name_of_a_build_by_chance_is_neither_written_nor_dropped(
    database: PostgresDatabase,
) -> None:
    fill(make(database, name="name text"), name="mine")
    database.query("create table cases__2 (like cases including all); insert into cases__2 table cases")
    shadow = make(database, SECOND, name="name text")
    with pytest.raises(ConfigError, match=r"cases__2 exists, and is not a build of public\.cases"):
        shadow.open()
    with pytest.raises(ConfigError, match=r"public\.cases__2 is not a build of public\.cases"):
        make(database, name="name text").make_switch().exchange(TO_SECOND)
    shadow.make_switch().drop()
    assert len(database.query("table cases__2")) == 2
