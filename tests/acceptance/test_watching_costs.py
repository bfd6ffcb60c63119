"""What watching costs: readers of streams, scrapes, requests and taps during a catch-up at full speed."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from time import thread_time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

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
from tests.acceptance.world import live, statuses
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.support.waiting import wait_until

DOCUMENTS, PAIRS = 30_000, 5
PILLOWS = ("first", "second", "third")
#: Streams at once; scrapes and requests per second.
STREAMS, SCRAPES, REQUESTS = 16, 10, 50
LEAST_TAPPED = 0.95
#: Of the documents per second of the daemon's CPU. Elapsed time says something else on two cores: that of a
#: catch-up together with the programs that watch, CouchDB and PostgreSQL, all of them on the same cores.
LEAST_WATCHED = 0.97
#: Documents of a catch-up that lasts for its pairs of windows: one in which it is watched, one in which
#: another daemon is.
MANY_DOCUMENTS, CATCH_UPS, WINDOW_PAIRS, WINDOW_SECONDS = 900_000, 6, 2, 5.0
#: Until all pillows of a catch-up read and write at full speed.
WARM_UP_SECONDS = 6.0
#: Time that those who watch get to connect, and to go again, outside of the windows.
SETTLE_SECONDS = 1.0
#: Writes per second, windows with and without those who watch, and how much slower the slowest of a hundred
#: writes may become visible.
WRITES, LATENCY_WINDOWS, LATENCY_SECONDS = 500, 7, 10
MOST_SLOWER = 1.10
#: So many of the wanted requests must have been answered, else the measure is of something less.
LEAST_ANSWERED = 0.9
MOST_HOOK_SECONDS = 1e-7

Watch = Callable[[Pillowd], Any]


class Runs:
    """Daemons of three pillows that copy the same database into PostgreSQL."""

    def __init__(self, folder: Path, couch: Any, database: CouchDatabase, dsn: str) -> None:
        self._folder, self._couch, self._database, self._dsn = folder, couch, database, dsn
        self._number = 0

    def measure_catch_up(self, watch: Watch) -> float:
        """Catch up once. Return the CPU seconds of the daemon."""
        with self.running() as daemon, watch(daemon):
            used = cpu_seconds(daemon)
            daemon.wait_for(lambda: self._is_done(daemon), seconds=600)
            return cpu_seconds(daemon) - used

    def measure_latency(self, table: str) -> float:
        """Return how many milliseconds the slowest of a hundred writes takes to a table."""
        parts = urlsplit(self._database.url)
        user, password = self._couch.auth
        url = urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))
        numbers = (str(WRITES), str(LATENCY_SECONDS))
        done = subprocess.run(
            [sys.executable, "-m", "bench.latency", url, self._dsn, table, *numbers],
            capture_output=True,
            check=True,
            text=True,
        )
        return float(json.loads(done.stdout)["p99_ms"])

    def measure_rows(self, daemon: Pillowd) -> float:
        """Return how many rows a catch-up writes per second of the daemon's CPU."""
        rows, used = self.count_rows(daemon)
        gevent.sleep(WINDOW_SECONDS)
        rows_later, used_later = self.count_rows(daemon)
        return (rows_later - rows) / (used_later - used)

    def count_rows(self, daemon: Pillowd) -> tuple[int, float]:
        """Return how many rows all tables have, and the CPU seconds of the daemon at the same moment.

        The daemon's own numbers are up to a second old, and to count the rows takes a while.
        """
        with psycopg.connect(self._dsn) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            found = connection.execute(
                "select relname from pg_class where relname = any(%s)", (list(PILLOWS),)
            )
            tables = [name for (name,) in found.fetchall()]
            used = cpu_seconds(daemon)
            counts = [connection.execute(f"select count(*) from {each}").fetchone() for each in tables]
        return sum(each[0] for each in counts if each is not None), used

    @contextmanager
    def running(self) -> Iterator[Pillowd]:
        """Start a daemon that has not read anything yet."""
        for name in PILLOWS:
            self._drop(name)
        with self._make_daemon(self._database) as daemon:
            yield daemon.start()
            assert daemon.stop() == 0

    @contextmanager
    def idling(self) -> Iterator[Pillowd]:
        """Start a daemon of as many pillows whose database stays empty."""
        with closing(self._couch.database(f"{self._database.name}-empty").create()) as empty:
            with self._make_daemon(empty) as daemon:
                daemon.start()
                daemon.wait_for(lambda: live(daemon))
                yield daemon
                assert daemon.stop() == 0
            empty.drop()

    def _make_daemon(self, database: CouchDatabase) -> Pillowd:
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        # Else the pillows read the last minute twice, once, when they begin to share a feed.
        source = {"connection": "couch", "database": database.name, "join_overlap": "0s"}
        tables = "" if database is self._database else "idle_"
        return Pillowd(
            folder,
            connections={
                "couch": couchdb(self._couch.url, self._couch.auth),
                "warehouse": {"type": "postgres", "dsn": self._dsn},
            },
            pillows={
                name: {"source": source, "transport": [{"connection": "warehouse", "table": tables + name}]}
                for name in PILLOWS
            },
            daemon={"http": {"listen": f"127.0.0.1:{free_port()}"}},
        )

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
    return Runs(tmp_path, couch, couch_db, postgres_dsn)


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_streams_scrapes_and_requests_leave_a_catch_up_97_per_cent(
    runs: Runs, couch_db: CouchDatabase
) -> None:
    """All programs that watch do so at once: far more than a page, a Prometheus and a health check.

    They connect before their windows, as somebody who watches for a minute does it once. In the windows
    without them they watch another daemon: on the same cores the programs that watch slow everything down,
    and that is not what a daemon's answers cost. The windows of a pair come in either order, since the
    tables grow.
    """
    fill(couch_db, MANY_DOCUMENTS)
    ratios = []
    with runs.idling() as other:
        for _ in range(CATCH_UPS):
            with runs.running() as daemon:
                daemon.wait_for(lambda: runs.count_rows(daemon)[0] > 0)
                gevent.sleep(WARM_UP_SECONDS)
                for pair in range(WINDOW_PAIRS):
                    found = {}
                    for watched in (pair % 2 == 1, pair % 2 == 0):
                        with watch_all(daemon if watched else other):
                            found[watched] = runs.measure_rows(daemon)
                        gevent.sleep(SETTLE_SECONDS)
                    ratios.append(found[True] / found[False])
                assert not live(daemon), "the catch-up lasted longer than the measurement"
    ratio = statistics.median(ratios)
    print(
        f"\n{STREAMS} streams, {SCRAPES} scrapes/s, {REQUESTS} requests/s: {ratio:.3f} of the throughput "
        f"for a second of CPU ({', '.join(f'{each:.3f}' for each in ratios)})"
    )
    assert ratio >= LEAST_WATCHED


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_whoever_watches_does_not_delay_what_is_written(runs: Runs, couch_db: CouchDatabase) -> None:
    """The time from a write's acknowledgement to its row, the slowest of a hundred, in windows by turns."""
    alone, watched = [], []
    with runs.running() as daemon:
        daemon.wait_for(lambda: live(daemon))
        for _ in range(LATENCY_WINDOWS):
            alone.append(runs.measure_latency(PILLOWS[0]))
            with watch_all(daemon):
                watched.append(runs.measure_latency(PILLOWS[0]))
    print("\np99 of a write, in ms: alone", alone, "watched", watched)
    assert statistics.median(watched) <= MOST_SLOWER * statistics.median(alone)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_taps_on_three_pillows_slow_them_by_five_per_cent_at_most(
    runs: Runs, couch_db: CouchDatabase
) -> None:
    """Compare the CPU time of pairs of catch-ups: elapsed time depends on what else the machine does."""
    fill(couch_db, DOCUMENTS)
    ratios = []
    for _ in range(PAIRS):
        alone = runs.measure_catch_up(lambda _: nullcontext())
        ratios.append(alone / runs.measure_catch_up(tap_all))
    ratio = statistics.median(ratios)
    print(
        f"\na tap on each of three pillows: {ratio:.3f} of the throughput per second of CPU "
        f"({', '.join(f'{each:.3f}' for each in ratios)})"
    )
    assert ratio >= LEAST_TAPPED


@pytest.mark.proof
def test_without_a_tap_the_hooks_cost_a_tenth_of_a_microsecond_at_most() -> None:
    """The two hooks together cost that for a batch, even if each change is a batch of its own."""
    clock = SystemClock()
    observer = CompositeObserver([LogObserver(), NotableEvents(clock), Taps(clock)])
    tail = TailKey("cases", "couch/cases")
    changes = [Change(id="a", revs=("1-x",), leaf_version=1)]
    rounds = 100_000

    def batches() -> float:
        began = thread_time()
        for _ in range(rounds):
            for each in observer.data_observers:  # as `Pillow` does
                each.arrived(tail, changes=changes)
            for each in observer.data_observers:  # as `BatchDelivery` does
                each.transformed(tail, documents=())
        return thread_time() - began

    seconds = min(batches() for _ in range(5)) / rounds
    print(f"\nthe hooks take {seconds * 1e9:.0f} ns a batch")
    assert seconds < MOST_HOOK_SECONDS


def fill(database: CouchDatabase, documents: int) -> None:
    text = "x" * 300
    for start in range(0, documents, 5_000):
        database.bulk(
            {"_id": f"d{number:06}", "n": number, "text": text} for number in range(start, start + 5_000)
        )


@contextmanager
def watch_all(daemon: Pillowd) -> Iterator[None]:
    """Watch as many as the limits are for, from the first answer to each on."""
    host, _, port = daemon.settings["daemon"]["http"]["listen"].partition(":")
    answered = begun = 0

    def ask(path: str, each_seconds: float) -> None:
        nonlocal answered, begun
        with closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
            connection.connect()
            begun += 1
            at = time.monotonic()
            while True:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                answered += answer.status == 200
                at += each_seconds
                gevent.sleep(max(0.0, at - time.monotonic()))

    def read() -> None:
        nonlocal begun
        while True:
            with closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
                connection.request("GET", "/v1/events")
                with connection.getresponse() as stream:
                    if stream.status == 200:
                        begun += 1
                        for _ in stream:
                            pass
                        return
            gevent.sleep(SETTLE_SECONDS)  # the daemon has not noticed yet that former readers have gone

    with ExitStack() as stack:
        greenlets: list[Any] = [gevent.spawn(read) for _ in range(STREAMS)]
        greenlets.append(gevent.spawn(ask, "/metrics", 1 / SCRAPES))
        greenlets += [gevent.spawn(ask, "/v1/pillows", 5 / REQUESTS) for _ in range(5)]
        stack.callback(gevent.killall, greenlets)
        wait_until(lambda: begun == len(greenlets))
        gevent.sleep(SETTLE_SECONDS)
        began, before = time.monotonic(), answered
        yield
        wanted = (SCRAPES + REQUESTS) * (time.monotonic() - began)
        assert all(not greenlet.dead for greenlet in greenlets), "each was answered to the end"
        assert answered - before >= LEAST_ANSWERED * wanted


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
