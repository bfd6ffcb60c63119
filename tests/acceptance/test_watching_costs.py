"""What watching costs: readers of streams, scrapes, requests and taps beside a catch-up at full speed."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from time import thread_time
from typing import Any, NamedTuple

import gevent
import psutil
import psycopg
import pytest

from checkpoints import TailKey
from daemon.cli.control_client import name_pillow
from daemon.http.client import HttpClient
from daemon.logs.observer import LogObserver
from daemon.streams.notable_events import NotableEvents
from daemon.streams.taps import Taps
from pillows.clock import SystemClock
from pillows.models import Change
from pillows.observer import CompositeObserver
from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.world import statuses
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port

DOCUMENTS, ROUNDS = 60_000, 3
PILLOWS = ("first", "second", "third")
#: Streams at once; scrapes and requests a second.
STREAMS, SCRAPES, REQUESTS = 16, 10, 50
LEAST_TAPPED = 0.95
#: CPU seconds a second that the daemon spends on all who watch; nearly all for the requests and scrapes.
MOST_WATCHING = 0.125
MOST_HOOK_SECONDS = 1e-7

Watch = Callable[[Pillowd], Any]


class Taken(NamedTuple):
    """What a catch-up took: elapsed seconds, and CPU seconds of the daemon."""

    seconds: float
    cpu_seconds: float


class Runs:
    """Catch-ups of the same database, each by a daemon of its own."""

    def __init__(self, folder: Path, couch: Any, database: CouchDatabase, dsn: str) -> None:
        self._folder, self._couch, self._database, self._dsn = folder, couch, database, dsn
        self._number = 0

    def measure(self, watch: Watch) -> Taken:
        """Catch up once."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        source = {"connection": "couch", "database": self._database.name}
        daemon = Pillowd(
            folder,
            connections={
                "couch": couchdb(self._couch.url, self._couch.auth),
                "warehouse": {"type": "postgres", "dsn": self._dsn},
            },
            pillows={
                name: {"source": source, "transport": [{"connection": "warehouse", "table": name}]}
                for name in PILLOWS
            },
            daemon={"http": {"listen": f"127.0.0.1:{free_port()}"}},
        )
        with daemon:
            for name in PILLOWS:
                self._drop(name)
            daemon.start()
            with watch(daemon):
                began, used = time.monotonic(), cpu_seconds(daemon)
                daemon.wait_for(lambda: self._is_done(daemon), seconds=600)
                taken = Taken(time.monotonic() - began, cpu_seconds(daemon) - used)
            assert daemon.stop() == 0
        return taken

    def _is_done(self, daemon: Pillowd) -> bool:
        gevent.sleep(0.2)
        tails = statuses(daemon).values()
        return len(tails) == len(PILLOWS) and all(tail["changes"] >= DOCUMENTS for tail in tails)

    def _drop(self, table: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"drop table if exists {table}")
            connection.execute("drop table if exists pillowd_checkpoint")


@pytest.fixture
def runs(tmp_path: Path, couch: Any, couch_db: CouchDatabase, postgres_dsn: str) -> Runs:
    text = "x" * 300
    for start in range(0, DOCUMENTS, 5_000):
        couch_db.bulk(
            {"_id": f"d{number:06}", "n": number, "text": text} for number in range(start, start + 5_000)
        )
    return Runs(tmp_path, couch, couch_db, postgres_dsn)


def compare(runs: Runs, watch: Watch, what: str) -> tuple[Taken, Taken]:
    """Return what some catch-ups take alone and watched, by turns."""
    alone, watched = [], []
    for _ in range(ROUNDS):
        alone.append(runs.measure(lambda _: nullcontext()))
        watched.append(runs.measure(watch))
    total, seen = (Taken(*map(sum, zip(*taken, strict=True))) for taken in (alone, watched))
    print(
        f"\n{what}: {seen.seconds:.1f} s instead of {total.seconds:.1f} s, "
        f"{seen.cpu_seconds:.2f} s of CPU instead of {total.cpu_seconds:.2f} s"
    )
    return total, seen


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_streams_scrapes_and_requests_take_an_eighth_of_a_core_at_most(runs: Runs) -> None:
    """All that watch at once: far more than a page, a Prometheus and a health check ask for."""
    what = f"{STREAMS} streams, {SCRAPES} scrapes/s, {REQUESTS} requests/s"
    alone, watched = compare(runs, watch_all, what)
    share = (watched.cpu_seconds - alone.cpu_seconds) / watched.seconds
    print(f"watching takes {share * 1000:.0f} ms of the daemon's CPU a second")
    assert share <= MOST_WATCHING


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_taps_on_three_pillows_slow_them_by_five_per_cent_at_most(runs: Runs) -> None:
    alone, tapped = compare(runs, tap_all, "a tap on each of three pillows")
    # By CPU time: what else runs on a machine makes elapsed time say little.
    assert alone.cpu_seconds / tapped.cpu_seconds >= LEAST_TAPPED


@pytest.mark.proof
def test_without_a_tap_the_hook_costs_a_tenth_of_a_microsecond_a_change_at_most() -> None:
    clock = SystemClock()
    observer = CompositeObserver([LogObserver(), NotableEvents(clock), Taps(clock)])
    tail = TailKey("cases", "couch/cases")
    changes = [Change(id=str(number), revs=("1-x",), leaf_version=1) for number in range(10)]
    count = 100_000

    def batches() -> float:
        began = thread_time()
        for _ in range(count):
            observer.arrived(tail, changes=changes)
            observer.transformed(tail, documents=())
        return thread_time() - began

    seconds = min(batches() for _ in range(5)) / count
    print(
        f"\nthe hooks take {seconds * 1e9:.0f} ns a batch, {seconds * 1e8:.0f} ns a change in batches of ten"
    )
    assert seconds / len(changes) < MOST_HOOK_SECONDS


@contextmanager
def watch_all(daemon: Pillowd) -> Iterator[None]:
    host, _, port = daemon.settings["daemon"]["http"]["listen"].partition(":")

    def ask(path: str, each_seconds: float) -> None:
        with closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
            while True:
                began = time.monotonic()
                connection.request("GET", path)
                connection.getresponse().read()
                gevent.sleep(max(0.0, each_seconds - (time.monotonic() - began)))

    def read() -> None:
        with closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
            connection.request("GET", "/v1/events")
            with connection.getresponse() as stream:
                for _ in stream:
                    pass

    with ExitStack() as stack:
        greenlets: list[Any] = [gevent.spawn(read) for _ in range(STREAMS)]
        greenlets.append(gevent.spawn(ask, "/metrics", 1 / SCRAPES))
        greenlets += [gevent.spawn(ask, "/v1/pillows", 5 / REQUESTS) for _ in range(5)]
        stack.callback(gevent.killall, greenlets)
        yield
        assert all(not greenlet.dead for greenlet in greenlets), "each was answered to the end"


@contextmanager
def tap_all(daemon: Pillowd) -> Iterator[None]:
    client = HttpClient(daemon.folder / "admin.sock")
    seen: dict[str, int] = {}

    def tap(name: str) -> None:
        with client.stream("tap_pillow", **name_pillow(name), rate=10, values=True) as messages:
            for message in messages:
                seen[name] = seen.get(name, 0) + bool(message.event)

    with ExitStack() as stack:
        stack.callback(gevent.killall, [gevent.spawn(tap, name) for name in PILLOWS])
        yield
        assert sorted(seen) == sorted(PILLOWS), "each has seen something"


def cpu_seconds(daemon: Pillowd) -> float:
    times = psutil.Process(daemon.child.pid).cpu_times()
    return float(times.user + times.system)
