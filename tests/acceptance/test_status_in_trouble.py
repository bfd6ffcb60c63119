"""`status` never says `live` about a pillow whose target refuses, however busy its source is."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from typing import Any

import gevent
import psycopg
import pytest
from gevent.event import Event

from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, live, statuses
from tests.servers.couch_client import CouchDatabase
from tests.servers.scripted import Ending, Pause, Request, ScriptedServer, head
from tests.servers.tcp_proxy import TcpProxy
from tests.support.sizes import size

#: Samples of `status` over all kinds of trouble together, and the pause between two.
SAMPLES, PAUSE_SECONDS = size(ci=80, proof=500), size(ci=0.2, proof=0.5)
#: How soon a trouble must show: a target that does not answer is noticed after 5 s.
NOTICED_SECONDS = size(ci=60.0, proof=15.0)
WRITE_PAUSE_SECONDS = 0.1


class Hooks:
    """Webhooks that answer well, until each goes wrong in its own way."""

    def __init__(self, server: ScriptedServer) -> None:
        self.urls = {name: f"{server.url}/{name}" for name in ("unavailable", "busy", "silent", "broken")}
        self._is_wrong = False
        wrong: dict[str, Any] = {
            "unavailable": head(503, length=0),
            "busy": head(429, length=0),
            "silent": (Pause(3600.0),),
            "broken": (Ending.RESET,),
        }
        for name, answer in wrong.items():
            server.on("POST", f"/{name}", partial(self._answer, answer))

    def break_down(self) -> None:
        self._is_wrong = True

    def _answer(self, wrong: Any, _request: Request) -> Any:
        return wrong if self._is_wrong else head(204, length=0)


@contextmanager
def written(database: CouchDatabase) -> Iterator[None]:
    """Keep a source busy."""
    stop = Event()

    def write() -> None:
        for number in count():
            if stop.wait(WRITE_PAUSE_SECONDS):
                return
            database.put(f"busy-{number}", n=number)

    writer = gevent.spawn(write)
    try:
        yield
    finally:
        stop.set()
        writer.get(timeout=60)


@contextmanager
def locked_tables(world: World) -> Iterator[None]:
    """Lock the tables `locked_sqlite` and `locked_postgres`."""
    with (
        closing(sqlite3.connect(world.sqlite_path, isolation_level=None, timeout=30)) as connection,
        psycopg.connect(world.postgres_dsn) as locking,
    ):
        connection.execute("begin immediate")
        locking.execute("lock table locked_postgres in access exclusive mode")
        yield


@pytest.mark.timeout(size(ci=300, proof=900))
def test_a6_status_never_says_live_about_a_pillow_whose_target_refuses(
    world: World,
    scripted_server: Callable[[], ScriptedServer],
    tcp_proxy: Callable[[Any], TcpProxy],
    postgres_dsn: str,
) -> None:
    hooks = Hooks(scripted_server())
    info = psycopg.conninfo.conninfo_to_dict(postgres_dsn)
    postgres = tcp_proxy((str(info["host"]), int(info.get("port") or 5432)))
    host, _, port = world.elasticsearch_url.removeprefix("http://").partition(":")
    elasticsearch = tcp_proxy((host, int(port)))
    world.connections |= {name: {"type": "webhook", "url": url} for name, url in hooks.urls.items()}
    world.connections["postgres_away"] = {
        "type": "postgres",
        "dsn": psycopg.conninfo.make_conninfo(postgres_dsn, host="127.0.0.1", port=postgres.port),
    }
    world.connections["elasticsearch_away"] = {"type": "elasticsearch", "hosts": [elasticsearch.url]}
    source = {"connection": "couch", "database": world.couch.name}
    pillows = {name: {"source": source, "transport": [{"connection": name}]} for name in hooks.urls} | {
        "locked_sqlite": world.pillow("locked_sqlite", "sqlite"),
        "locked_postgres": world.pillow("locked_postgres", "postgres"),
        "postgres_away": {
            "source": source,
            "transport": [{"connection": "postgres_away", "table": "away"}],
        },
        "elasticsearch_away": {
            "source": source,
            "transport": [{"connection": "elasticsearch_away", "index": world.alias("away")}],
        },
    }
    world.fill(10)
    daemon = world.pillowd(pillows).start()
    daemon.wait_for(lambda: live(daemon))
    with written(world.couch), locked_tables(world):
        hooks.break_down()
        for proxy in (postgres, elasticsearch):
            proxy.refuse()
            proxy.reset()
        daemon.wait_for(lambda: not states(daemon)["live"], seconds=NOTICED_SECONDS)
        for _ in range(SAMPLES // len(pillows)):
            time.sleep(PAUSE_SECONDS)
            found = statuses(daemon)
            assert {name for name, one in found.items() if one["state"] == "live"} == set()
            assert all(one["reason"] and one["pending"] for one in found.values()), found


def states(daemon: Pillowd) -> Counter[str]:
    """Return how many pillows are in each state."""
    return Counter(one["state"] for one in statuses(daemon).values())
