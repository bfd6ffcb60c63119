"""Pillows that read one database: each is as current as it would be alone, also while they come to share."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from tests.acceptance import wire
from tests.acceptance.world import World, live, statuses
from tests.servers.couch_client import CouchDatabase

#: Readers come to share within two checks of those that read alone, each after 30 s.
WATCH_SECONDS = 100.0
WRITE_PAUSE_SECONDS = 0.2
NAMES = ("one", "two", "three")
#: The longest time from a write to its row; while they joined, it was more than 5.
MOST_SECONDS = 2.0


@contextmanager
def writing(couch: CouchDatabase) -> Iterator[list[float]]:
    """Write a document every `WRITE_PAUSE_SECONDS`; the list has the time of each write."""
    enough, written = threading.Event(), list[float]()
    client = CouchDatabase(couch.server_url, couch.name, auth=couch.auth)

    def write() -> None:
        while not enough.wait(WRITE_PAUSE_SECONDS):
            client.put(f"steady-{len(written):05}", n=len(written))
            written.append(time.monotonic())

    with ThreadPoolExecutor(1) as pool, closing(client):
        done = pool.submit(write)
        try:
            yield written
        finally:
            enough.set()
        done.result()


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_pillows_on_one_database_do_not_pause_while_they_come_to_share_it(world: World) -> None:
    world.fill(300)
    pillows = {name: world.pillow(name, "sqlite", source={"join_overlap": "5s"}) for name in NAMES}
    daemon = world.pillowd(pillows).start()
    daemon.wait_for(lambda: live(daemon))
    late, lag_then = 0.0, None
    with writing(world.couch) as written, closing(sqlite3.connect(world.sqlite_path)) as rows:
        until = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < until:
            time.sleep(0.05)
            for name in NAMES:
                known, now = len(written), time.monotonic()
                sql = f"select count(*) from {name} where _id like 'steady-%'"
                (arrived,) = rows.execute(sql).fetchone()
                if arrived < known and now - written[arrived] > late:
                    late, lag_then = now - written[arrived], statuses(daemon)[name]["lag_seconds"]
        last = f"steady-{len(written) - 10:05}"
    sent = [count for (id, _), count in wire.sent(world.proxy.connections).rows.items() if id == last]
    assert sent == [1], "they share a connection by now"
    print(f"\nthe latest row came after {late:.2f} s, the lag was {lag_then} s then")
    assert late < MOST_SECONDS
