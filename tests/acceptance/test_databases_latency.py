"""How soon a change in one of many databases is in the target, even while other databases are in trouble.

Times are only looked at at full size: they need a quiet machine.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couchdb.process import CouchDB
from tests.support.databases import Databases
from tests.support.sizes import proving, size

DATABASES, BAD = size(ci=10, proof=1000), size(ci=2, proof=20)
RATE = size(ci=20, proof=100)
SECONDS = size(ci=1.0, proof=60.0)
POLL_SECONDS = size(ci=1.0, proof=30.0)
UPDATES_SECONDS = 2.0


@pytest.fixture
def server() -> Iterator[CouchDB]:
    with CouchDB(memory=True) as server:
        yield server


class Writers:
    """Writes documents into databases, and looks when they are in the target.

    Args:
        databases: the databases.
        target: the SQLite file.
    """

    def __init__(self, databases: Databases, target: Path) -> None:
        self._databases = databases
        self._target = target
        self._draw = random.Random(23)
        self._number = 0
        self._pending: dict[str, float] = {}
        self._found: list[float] = []

    def measure(self, names: list[str], others: list[str]) -> float:
        """Write for a while; return the 99th percentile of the seconds until a document is there.

        Args:
            names: the databases that are measured.
            others: databases that are written to as well, one write in five.
        """
        self._found = []
        reader = gevent.spawn(self._read)
        began_at, writes = time.monotonic(), int(RATE * SECONDS)
        for number in range(writes):
            gevent.sleep(max(0.0, began_at + number / RATE - time.monotonic()))
            if others and number % 5 == 0:
                self._write(self._draw.choice(others))
            else:
                self._pending[self._write(self._draw.choice(names))] = time.monotonic()
        until = time.monotonic() + POLL_SECONDS + 60
        while self._pending and time.monotonic() < until:
            gevent.sleep(0.05)
        reader.kill()
        assert not self._pending, f"{len(self._pending)} of {writes} never came"
        return statistics.quantiles(self._found, n=100)[98]

    def _write(self, name: str) -> str:
        self._number += 1
        id = f"w{self._number:07}"
        self._databases[name].put(id, n=self._number)
        return f"{self._databases.prefix}{name}:{id}"

    def _read(self) -> None:
        with closing(sqlite3.connect(f"file:{self._target}?mode=ro", uri=True)) as db:
            while True:
                asked = list(self._pending)[:500]
                marks = ",".join("?" * len(asked))
                for (key,) in db.execute(f"select _id from docs where _id in ({marks})", asked).fetchall():
                    self._found.append(time.monotonic() - self._pending.pop(key))
                gevent.sleep(0.02)


@pytest.fixture
def databases(server: CouchDB) -> Databases:
    return Databases(server, "user-")


@contextmanager
def started(folder: Path, databases: Databases, count: int, **source: Any) -> Iterator[Pillowd]:
    """Create databases, and yield a daemon that has read them all."""
    for number in range(count):
        databases.create(f"{number:04}", 1)
    for number in range(BAD):
        databases.create(f"bad-{number:02}", 1)
    connections = {
        "couch": couchdb(databases.server.url, databases.server.auth),
        "lite": {"type": "sqlite", "path": str(folder / "t.sqlite")},
    }
    pillow = {
        "source": {"connection": "couch", "databases": f"{databases.prefix}*", **source},
        "transport": [{"connection": "lite", "table": "docs"}],
    }
    with Pillowd(folder, connections=connections, pillows={"users": pillow}) as daemon:
        daemon.start()
        daemon.wait_for(
            lambda: daemon.status("users")["databases"] == {"parked": count + BAD},
            seconds=size(ci=60, proof=300),
        )
        yield daemon


@pytest.mark.timeout(1200)
@pytest.mark.proof
@pytest.mark.parametrize("updates", [True, False], ids=["_db_updates", "sweeps"])
def test_a_change_is_soon_in_the_target(
    server: CouchDB, databases: Databases, tmp_path: Path, updates: bool
) -> None:
    if updates:
        server_url = f"{server.url}/_global_changes"
        requests.put(server_url, auth=server.auth, timeout=30).raise_for_status()
    with started(tmp_path, databases, DATABASES, poll=f"{POLL_SECONDS}s"):
        writers = Writers(databases, tmp_path / "t.sqlite")
        p99_seconds = writers.measure([f"{number:04}" for number in range(DATABASES)], [])
    print(f"\np99 {p99_seconds:.2f} s")
    limit_seconds = UPDATES_SECONDS if updates else POLL_SECONDS + 5
    assert p99_seconds < limit_seconds or not proving()


TROUBLE: dict[str, dict[str, Any]] = {
    "403": {"does": "answer", "status": 403, "error": "forbidden", "reason": "You are not allowed."},
    "404": {"does": "answer", "status": 404, "error": "not_found", "reason": "Database does not exist."},
    "500": {"does": "answer", "status": 500},
    "hangs": {"does": "silence", "seconds": 60},
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "trouble", ["hangs", *(pytest.param(each, marks=pytest.mark.proof) for each in ("403", "404", "500"))]
)
def test_databases_in_trouble_slow_no_other_down(
    server: CouchDB, databases: Databases, tmp_path: Path, trouble: str
) -> None:
    requests.put(f"{server.url}/_global_changes", auth=server.auth, timeout=30).raise_for_status()
    count = min(DATABASES, 100)
    names, bad = [f"{number:04}" for number in range(count)], [f"bad-{number:02}" for number in range(BAD)]
    with started(tmp_path, databases, count) as daemon:
        writers = Writers(databases, tmp_path / "t.sqlite")
        before_seconds = writers.measure(names, bad)
        path = rf"/{databases.prefix}bad-\d+(/_changes)?"
        server.fail(method="GET|POST", path=path, times=0, **TROUBLE[trouble])
        after_seconds = writers.measure(names, bad)
        counts = daemon.status("users")["databases"]
        server.heal()
    print(f"\np99 {before_seconds:.2f} s, {after_seconds:.2f} s beside {BAD} in trouble; {counts}")
    assert counts.get("parked", 0) <= count
    assert after_seconds < 1.2 * before_seconds or not proving()
