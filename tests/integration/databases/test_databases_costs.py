"""What many databases cost the server, and each other."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import gevent
import pytest

from pillows.databases.members import Members
from pillows.databases.turns.first_turn import FirstTurn
from pillows.databases.turns.turn import Turn
from tests.support.databases import Databases, RunningDatabases, make_config, read_sqlite, running
from tests.support.sizes import size

KNOWN = size(ci=120, proof=10_000)
CHANGED = 12
SMALL = 9_999
LARGE_DOCUMENTS = 500_000
WRITERS = 8


def config_of(databases: Databases, folder: Path, source: str = "") -> str:
    return make_config(databases, f"type: sqlite, path: {folder}/t.sqlite", "table: docs", source=source)


@contextmanager
def target_of(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "t.sqlite", isolation_level=None)) as db:
        yield db


def test_others_are_read_while_some_wait_for_the_target(databases: Databases, tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(12)]
    for name in names:
        databases.create(name, 1)
    config = config_of(databases, tmp_path, ", max_active: 2")
    with running(config, tmp_path) as pillow, target_of(tmp_path) as db:
        pillow.until_parked(12)
        db.execute("begin immediate")
        for name in names:
            databases[name].put("late", n=1)
        pillow.until(lambda: pillow.states() == {"active": 12})
        db.execute("rollback")
        pillow.until_parked(12)
    assert read_sqlite(tmp_path / "t.sqlite").keys() == databases.documents().keys()


@pytest.mark.timeout(size(ci=300, proof=3600))
def test_a_restart_asks_the_server_little(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(KNOWN):
        databases.create(f"{number:05}", 1)
    config = config_of(databases, tmp_path)
    with running(config, tmp_path) as pillow:
        pillow.until_parked(KNOWN, 1200)
        gevent.sleep(1.5)  # `_db_updates` reports what happened up to half a second ago
        pillow.until_parked(KNOWN)
    for number in range(0, KNOWN, KNOWN // CHANGED):
        databases[f"{number:05}"].put("new", n=number)

    asked: list[int] = []
    make_turn = Members.make_turn

    def count(members: Members, name: str) -> Turn | FirstTurn:
        asked.append(count_requests(pillow))
        return make_turn(members, name)

    monkeypatch.setattr(Members, "make_turn", count)
    began = time.monotonic()
    with running(config, tmp_path) as pillow:
        pillow.until_parked(KNOWN, 300)
        seconds, requests = time.monotonic() - began, count_requests(pillow)
    print(
        f"\n{seconds:.1f} s, {asked[0]} requests before the first turn, {requests} in all, {len(asked)} turns"
    )
    assert read_sqlite(tmp_path / "t.sqlite").keys() == databases.documents().keys()
    # One for what `_db_updates` says, one for what the sweep that runs meanwhile sees of it.
    assert len(asked) <= 2 * CHANGED + 2
    # Pages of a sweep, two for each turn; the welcome, `_db_updates`, and what a part of a sweep ends with.
    assert requests <= KNOWN // 100 + 2 * len(asked) + 8
    if KNOWN == 10_000:
        assert seconds < 60
        assert asked[0] < 150


def count_requests(pillow: RunningDatabases) -> int:
    return sum(sum(client.outcomes.values()) for client in pillow.feeds._clients.values())


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_a_large_database_delays_no_small_one(databases: Databases, tmp_path: Path) -> None:
    config = config_of(databases, tmp_path)
    for number in range(SMALL):
        databases.create(f"{number:05}", 1)
    with running(config, tmp_path) as pillow:
        pillow.until_parked(SMALL, 1800)
    databases.create("large", LARGE_DOCUMENTS)
    large, waits = f"{databases.prefix}large", list[float]()

    def write(writer: int) -> None:
        draw = random.Random(writer)
        with target_of(tmp_path) as db:
            while pillow.tail.status_of(large).changes < LARGE_DOCUMENTS:
                name, id = f"{draw.randrange(SMALL):05}", f"of-{writer}-{len(waits)}"
                databases[name].put(id, n=1)
                began = time.monotonic()
                key = f"{databases.prefix}{name}:{id}"
                while not db.execute("select 1 from docs where _id = ?", (key,)).fetchone():
                    gevent.sleep(0.02)
                waits.append(time.monotonic() - began)
                gevent.sleep(draw.uniform(0.0, 0.5))

    with running(config, tmp_path) as pillow:
        pillow.until(lambda: large in pillow.tail)
        gevent.joinall([gevent.spawn(write, writer) for writer in range(WRITERS)], raise_error=True)
        pillow.until_parked(SMALL + 1)
    p99 = statistics.quantiles(waits, n=100)[98]
    print(f"\n{len(waits)} writes to small databases: {statistics.median(waits):.2f} s, p99 {p99:.2f} s")
    with target_of(tmp_path) as db:
        assert db.execute("select count(*) from docs").fetchone() == (SMALL + LARGE_DOCUMENTS + len(waits),)
    assert len(waits) >= 200
    assert p99 < 5.0
