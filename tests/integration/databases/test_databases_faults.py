"""Databases that come and go, servers that refuse, a pillow that is killed: nothing is lost or left over."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests

from checkpoints import Checkpoint, CheckpointStore, StoreWriteError, TailKey
from pillows.databases.shared_transport import SharedTransport
from pillows.dead_letters.store import DeadLetters
from tests.conftest import CouchServer
from tests.servers.couchdb.process import CouchDB
from tests.support.databases import Databases, make_config, read_sqlite, running
from tests.support.sizes import size
from tests.support.waiting import wait_until

KILLS = size(ci=6, proof=50)
ACTS = size(ci=40, proof=1000)
#: A real server has other users.
LOADED = 1000 if "PILLOWD_TEST_COUCHDB_URL" in os.environ else size(ci=200, proof=10_000)


def config_of(databases: Databases, folder: Path, source: str = "") -> str:
    return make_config(databases, f"type: sqlite, path: {folder}/t.sqlite", "table: docs", source=source)


def rows(folder: Path) -> dict[str, Any]:
    path = folder / "t.sqlite"
    return {key: json.loads(doc) for key, doc in read_sqlite(path).items()} if path.exists() else {}


def test_a_pillow_that_is_killed_again_and_again_loses_nothing(databases: Databases, tmp_path: Path) -> None:
    draw = random.Random(7)
    for number in range(12):
        databases.create(f"{number:02}", 2)
    config = config_of(databases, tmp_path)
    for _ in range(KILLS):
        with running(config, tmp_path, ends_by_kill=True) as pillow:
            for _ in range(3):
                name = f"{draw.randrange(12):02}"
                databases[name].put(f"doc-{draw.randrange(4):06}", n=draw.random())
            gevent.sleep(draw.uniform(0.0, 0.4))
    with running(config, tmp_path) as pillow:
        pillow.until_parked(12)
        pillow.until(lambda: rows(tmp_path) == databases.documents())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("on_deleted", ["keep", "remove"])
def test_databases_that_come_and_go_leave_nothing_behind_that_should_not_be(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_deleted: str
) -> None:
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.3)
    draw, there, ever = random.Random(11), set[str](), set[tuple[str, str]]()
    config = config_of(databases, tmp_path, f", on_deleted: {on_deleted}, on_recreated: reload, poll: 1s")

    def note(name: str) -> None:
        ever.update(
            (f"{databases.prefix}{name}:{id}", _text(doc)) for id, doc in databases[name].documents().items()
        )

    with running(config, tmp_path) as pillow:
        for _ in range(ACTS):
            name = draw.choice("abcdef")
            if name not in there:
                databases.create(name, draw.randrange(1, 4), born=draw.random())
                there.add(name)
            elif draw.random() < 0.5:
                databases[name].drop()
                there.remove(name)
            else:
                databases[name].put("doc-000000", n=draw.random())
            if name in there:
                note(name)
            gevent.sleep(draw.uniform(0.0, 0.1))
        for name in "gh":
            databases.create(name, 2)
        pillow.until(lambda: of_existing(tmp_path, databases) == databases.documents(), 120)
        databases["g"].drop()
        kept = (
            {f"{databases.prefix}g:doc-{number:06}" for number in range(2)} if on_deleted == "keep" else set()
        )
        gone = 7 - len(there)
        pillow.until(lambda: pillow.states().get("deleted") == gone, 120)
        pillow.until(lambda: on_deleted == "keep" or rows(tmp_path) == databases.documents(), 120)
    found = rows(tmp_path)
    assert of_existing(tmp_path, databases) == databases.documents()
    assert kept == {key for key in found if key.startswith(f"{databases.prefix}g:")}
    left = {(key, _text(doc)) for key, doc in found.items() if key not in databases.documents()}
    assert {each for each in left if not each[0].startswith(f"{databases.prefix}g:")} <= ever, "invented"


def test_a_database_that_is_created_anew_in_the_same_second_leaves_no_rows(
    couch_server: Callable[..., CouchDB], tmp_path: Path
) -> None:
    server = couch_server(memory=True)
    requests.put(f"{server.url}/_global_changes", auth=server.auth, timeout=30).raise_for_status()
    created = f"{server.url}/_node/_local/_config/stand-in/created"
    requests.put(created, json=str(int(time.time())), auth=server.auth, timeout=30).raise_for_status()
    databases = Databases(server, "user-")
    databases.create("a", 3)
    databases.create("b", 1)
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(2)
        databases["a"].drop()
        databases.create("a", 1)
        pillow.until(lambda: rows(tmp_path) == databases.documents(), 20)
        pillow.until_parked(2)
        databases["a"].put("more", n=1)
        pillow.until(lambda: rows(tmp_path) == databases.documents(), 20)


def of_existing(folder: Path, databases: Databases) -> dict[str, Any]:
    """Return the rows of the databases that exist."""
    there = set(databases.names())
    return {key: doc for key, doc in rows(folder).items() if key.partition(":")[0] in there}


def _text(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


def test_a_database_that_refuses_us_holds_up_no_other(
    databases: Databases, tmp_path: Path, updates_server: CouchServer
) -> None:
    for name in ("a", "b", "bad"):
        databases.create(name, 2)
    point = [{"does": "answer", "path": f"/{databases.prefix}bad/_changes", "status": 500, "times": 0}]
    session = requests.Session()
    session.auth = updates_server.auth
    session.put(f"{updates_server.url}/_failpoints", json=point, timeout=30).raise_for_status()
    try:
        with running(config_of(databases, tmp_path), tmp_path) as pillow:
            pillow.until(lambda: pillow.states() == {"parked": 2, "backing-off": 1})
            databases["a"].put("more", n=1)
            pillow.until(lambda: f"{databases.prefix}a:more" in rows(tmp_path))
            assert "500" in pillow.tail.status_of(f"{databases.prefix}bad").reason
            session.delete(f"{updates_server.url}/_failpoints", timeout=30).raise_for_status()
            pillow.tail.resume(f"{databases.prefix}bad")
            pillow.until_parked(3)
    finally:
        session.delete(f"{updates_server.url}/_failpoints", timeout=30)
    assert rows(tmp_path) == databases.documents()


@pytest.mark.parametrize("cause", ["dead letter", "resume"])
def test_a_database_that_no_longer_matches_is_not_read_again(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    monkeypatch.setattr("pillows.databases.databases_run.DUE_SECONDS", 0.2)
    databases.create("a", 2)
    databases["a"].put("wrong", n={"not": "a number"})
    databases.create("b", 1)
    config = make_config(
        databases, f"type: sqlite, path: {tmp_path}/t.sqlite", "table: docs, columns: { n: n integer }"
    )
    excluded, wanted = f"{databases.prefix}a", f"{databases.prefix}b"
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
    written = read_sqlite(tmp_path / "t.sqlite", column="n")
    assert len(written) == 3
    databases["a"].put("doc-000000", n=7)
    databases["a"].put("late", n=1)
    with running(config.replace(f'"{databases.prefix}*"', f'"{wanted}*"'), tmp_path) as pillow:
        pillow.until(lambda: pillow.states() == {"parked": 1, "deleted": 1})
        tail = TailKey("users", f"couch/{excluded}")
        if cause == "resume":
            pillow.tail.resume(excluded)
        else:
            letters = [(each.transport, each.id) for each in pillow.letters.list(tail)]
            assert pillow.letters.retry(tail, letters) == 1
        gevent.sleep(1.0)
        databases["b"].put("late", n=1)
        pillow.until(lambda: f"{wanted}:late" in read_sqlite(tmp_path / "t.sqlite", column="n"))
        pillow.until(lambda: pillow.states() == {"parked": 1, "deleted": 1}, 20)
        assert pillow.tail.status_of(excluded).lag_seconds == 0
    assert read_sqlite(tmp_path / "t.sqlite", column="n") == written | {f"{wanted}:late": 1}


def test_a_database_that_was_reset_and_no_longer_matches_loses_its_rows_once(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases.create("a", 2)
    databases.create("b", 1)
    config = config_of(databases, tmp_path, ", on_deleted: remove")
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
    store = CheckpointStore(tmp_path / "checkpoints")
    store.edit(TailKey("users", f"couch/{databases.prefix}a"), Checkpoint.reset)
    store.close()
    sweep, swept = SharedTransport.sweep, list[str]()

    def note(shared: SharedTransport, tail: TailKey, *args: Any) -> int:
        swept.append(tail.database)
        return sweep(shared, tail, *args)

    monkeypatch.setattr(SharedTransport, "sweep", note)
    narrowed = config.replace(f'"{databases.prefix}*"', f'"{databases.prefix}b*"')
    for _ in range(2):
        with running(narrowed, tmp_path) as pillow:
            pillow.until(lambda: pillow.states() == {"parked": 1, "deleted": 1})
            pillow.until(lambda: rows(tmp_path).keys() == {f"{databases.prefix}b:doc-000000"}, 10)
            gevent.sleep(0.3)
    assert swept == [f"{databases.prefix}a"]
    with running(config, tmp_path) as pillow:
        pillow.until(lambda: rows(tmp_path) == databases.documents())


@pytest.mark.parametrize("is_first_turn", [True, False])
def test_a_database_whose_dead_letters_cannot_be_saved_is_read_again(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first_turn: bool
) -> None:
    databases.create("a", 1)
    config = make_config(
        databases, f"type: sqlite, path: {tmp_path}/t.sqlite", "table: docs, columns: { n: n integer }"
    )
    tail = TailKey("users", f"couch/{databases.prefix}a")
    if not is_first_turn:
        with running(config, tmp_path) as pillow:
            pillow.until_parked(1)
    databases["a"].put("wrong", n={"not": "a number"})

    def fail(*_: object) -> None:
        raise StoreWriteError("no space left")

    with running(config, tmp_path, ends_by_kill=True) as pillow:
        with monkeypatch.context() as full_disk:
            full_disk.setattr(DeadLetters, "sync", fail)
            pillow.until(lambda: pillow.states() == {"backing-off": 1}, 15)
            assert pillow.tail.status_of(tail.database).reason == "checkpoint: no space left"
        pillow.tail.resume(tail.database)
        pillow.until_parked(1)
        assert not pillow.letters.unsynced(tail)


def test_a_target_that_takes_nothing_and_a_server_that_is_silent_count_as_lag(
    databases: Databases, tmp_path: Path
) -> None:
    databases.create("a", 1)
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(1)
        pillow.until(lambda: pillow.tail.status().lag_seconds == 0)
        assert (pillow.tail.status().last_byte_age_seconds or 99) < 5
        with closing(sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None)) as db:
            db.execute("begin exclusive")
            databases["a"].put("late", n=1)
            pillow.until(lambda: (pillow.tail.status().lag_seconds or 0) > 0.5)
            db.execute("rollback")
        pillow.until_parked(1)
        pillow.until(lambda: pillow.tail.status().lag_seconds == 0)


def test_many_databases_need_few_connections(databases: Databases, tmp_path: Path) -> None:
    for number in range(LOADED):
        databases.create(f"{number:05}", 2)
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        most = 0

        def is_loaded() -> bool:
            nonlocal most
            clients = pillow.feeds._clients.values()
            most = max(most, sum(client.open_connections for client in clients))
            return pillow.is_parked(LOADED)

        wait_until(is_loaded, seconds=size(ci=60, proof=1200), worker=pillow.greenlet)
    assert 0 < most <= 64
    assert len(rows(tmp_path)) == 2 * LOADED
