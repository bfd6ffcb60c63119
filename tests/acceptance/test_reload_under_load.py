"""Reloads while documents are written: nothing is lost, and pillows that have not changed do not notice."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import gevent
import pytest
import yaml

from checkpoints.files.blocking import call_safely
from daemon.config.problems import ConfigErrors
from daemon.http.client import HttpClient
from tests.acceptance import stores
from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase
from tests.servers.tcp_proxy import TcpProxy
from tests.support.sizes import proving, size

#: Pillows that differ between the two configurations, those that do not, and reloads from one to the other.
CHANGED = 3
KEPT = size(ci=3, proof=17)
RELOADS = size(ci=10, proof=200)
INVALID = size(ci=3, proof=20)
#: Documents written per second, to all databases together, and the pause after each reload.
RATE = size(ci=100, proof=500)
PAUSE_SECONDS = size(ci=0.1, proof=0.5)
#: How long pillows may take until each has all the connections that it uses.
SETTLE_SECONDS = size(ci=0.5, proof=60.0)
#: Documents of each database.
IDS = 200


class Writing:
    """Writes, changes and deletes documents at a steady rate, in a thread."""

    def __init__(self, databases: list[CouchDatabase]) -> None:
        self.written = 0
        self._databases = databases
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        draw = random.Random(7)
        revs: dict[tuple[int, str], str] = {}
        batch = max(1, RATE // 10)
        due = time.monotonic()
        while not self._over.is_set():
            number = 0 if draw.random() < 0.5 else draw.randrange(len(self._databases))
            docs = [self._draw(draw, revs, number) for _ in range(batch)]
            unique = {doc["_id"]: doc for doc in docs}
            for row in self._databases[number].bulk(unique.values()):
                if "rev" in row:
                    revs[number, row["id"]] = row["rev"]
            self.written += len(unique)
            due += 0.1
            self._over.wait(max(0.0, due - time.monotonic()))

    def _draw(self, draw: random.Random, revs: dict[tuple[int, str], str], number: int) -> dict[str, Any]:
        id = f"doc-{draw.randrange(IDS):04}"
        doc = {"_id": id, "n": draw.random()}
        if (number, id) in revs:
            doc["_rev"] = revs[number, id]
            if draw.random() < 0.2:
                doc["_deleted"] = True
        return doc


class Load:
    """A daemon on one database for the changing pillows, and one for each of the others."""

    def __init__(self, folder: Path, couch: Any, tcp_proxy: Callable[[Any], TcpProxy]) -> None:
        self.kept, self.changing = tcp_proxy(couch), tcp_proxy(couch)
        self.folder = folder
        self.databases = [couch.database(f"test-{uuid.uuid4().hex[:12]}").create() for _ in range(KEPT + 1)]
        self.names = {f"changed{n}": self.databases[0] for n in range(CHANGED)}
        self.names |= {f"kept{n}": self.databases[n + 1] for n in range(KEPT)}
        connections = {
            "kept": couchdb(self.kept.url, couch.auth),
            "changing": couchdb(self.changing.url, couch.auth),
        }
        connections |= {name: {"type": "sqlite", "path": str(self.path(name))} for name in self.names}
        self.daemon = Pillowd(
            folder,
            pillows=self.pillows("one"),
            connections=connections,
        )
        self.settings = yaml.safe_load(self.daemon.config.read_text())
        self.client = HttpClient(folder / "admin.sock")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.sqlite"

    def pillows(self, side: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, database in self.names.items():
            changes = name.startswith("changed")
            made[name] = {
                "source": {"connection": "changing" if changes else "kept", "database": database.name},
                "transport": [{"connection": name, "table": "documents"}],
            }
            if changes:
                made[name]["transform"] = {"set": {"side": side}}
        return made

    def reload(self, **changes: Any) -> Mapping[str, Any]:
        """Write a configuration and reload it, while the proxies of this process go on."""
        self.daemon.config.write_text(yaml.safe_dump(self.settings | changes))
        call = partial(self.client.call, "reload_config")
        done, error = gevent.get_hub().threadpool.apply(call_safely, (call,))
        if error is not None:
            raise error
        return cast("Mapping[str, Any]", done)

    def starts(self, name: str) -> int:
        key = f"{name}@"
        return sum(
            event["pillow"].startswith(key)
            for kind in ("tail.started", "tail.resumed")
            for event in self.daemon.events(kind)
        )

    def differences(self, name: str) -> list[str]:
        """How a table differs from its database in ids, revisions and versions; bodies have a side."""

        def strip(rows: stores.Rows) -> stores.Rows:
            return {id: row._replace(body={}) for id, row in rows.items()}

        expected = strip(stores.couchdb(self.names[name]))
        return stores.differences(expected, strip(stores.sqlite(self.path(name), "documents")))

    def close(self) -> None:
        self.daemon.__exit__()
        for database in self.databases:
            with closing(database):
                database.drop()


@pytest.fixture
def load(tmp_path: Path, couch: Any, tcp_proxy: Callable[[Any], TcpProxy]) -> Iterator[Load]:
    made = Load(tmp_path, couch, tcp_proxy)
    yield made
    made.close()


@pytest.mark.timeout(size(ci=300, proof=1200))
def test_reloads_lose_nothing_and_leave_what_has_not_changed_alone(load: Load) -> None:
    load.daemon.start()
    load.daemon.wait_for(lambda: live(load.daemon))
    changed = sorted(f"{name}@changing/{load.databases[0].name}" for name in load.names if "changed" in name)
    seconds: list[float] = []
    with Writing(load.databases) as writing:
        gevent.sleep(SETTLE_SECONDS)
        connections = len(load.kept.connections)
        for number in range(RELOADS):
            if number % (RELOADS // INVALID) == 0:
                bad = load.pillows("bad")
                bad["kept0"]["transform"] = {"pick": ["a..b"]}
                with pytest.raises(ConfigErrors, match=r"(?s)1 problem .*pillows\.kept0\.transform\.pick"):
                    load.reload(pillows=bad)
            began = time.monotonic()
            done = load.reload(pillows=load.pillows("two" if number % 2 == 0 else "one"))
            seconds.append(time.monotonic() - began)
            load.daemon.manager.lines()  # as a service manager reads them: its socket holds only some
            assert sorted(done["changed"]) == changed
            assert (done["added"], done["removed"], done["unchanged"]) == ([], [], KEPT)
            gevent.sleep(PAUSE_SECONDS)
    assert writing.written > 0
    load.daemon.wait_for(lambda: not any(load.differences(name) for name in load.names))

    print(f"{RELOADS} reloads, {writing.written} writes, slowest reload {max(seconds):.2f} s")
    assert len(load.kept.connections) == connections, "no connection of the others is new"
    for name in load.names:
        assert load.starts(name) == (1 if name.startswith("kept") else 1 + RELOADS), name
    assert load.daemon.events("pillow.crashed") == load.daemon.events("pillow.killed") == []
    if proving():
        assert max(seconds) <= 2.0
