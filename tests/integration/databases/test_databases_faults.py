"""Databases that come and go, servers that refuse, a pillow that is killed: nothing is lost or left over."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests

from tests.conftest import CouchServer
from tests.support.databases import Databases, make_config, read_sqlite, running
from tests.support.sizes import size
from tests.support.waiting import wait_until

KILLS = size(ci=6, proof=50)
ACTS = size(ci=40, proof=1000)
LOADED = size(ci=200, proof=10_000)


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


def test_databases_that_come_and_go_leave_nothing_behind(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.3)
    draw, there = random.Random(11), set[str]()
    config = config_of(databases, tmp_path, ", on_deleted: remove, on_recreated: reload")
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
            gevent.sleep(draw.uniform(0.0, 0.1))
        pillow.until(lambda: rows(tmp_path) == databases.documents(), 120)


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
