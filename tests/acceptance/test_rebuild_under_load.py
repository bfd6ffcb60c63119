"""A rebuild, and switches back and forth, under writes and before readers who must notice nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import requests

from tests.acceptance import rebuilt
from tests.acceptance.world import World, live
from tests.support.sizes import proving, size

READ_SECONDS = 0.02
#: How long one report holds its transaction.
REPORT_SECONDS = 10


class Reader:
    """Counts the documents of a target again and again, in a thread of its own.

    Attributes:
        took: seconds of each reading.
        counts: what each reading found.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self.took: list[float] = []
        self.counts: list[int] = []
        self.errors: list[Exception] = []

    def read(self, stop: threading.Event) -> None:
        while not stop.wait(READ_SECONDS):
            began = time.monotonic()
            try:
                self.counts.append(self._count())
            except (psycopg.Error, requests.RequestException) as error:
                self.errors.append(error)
            self.took.append(time.monotonic() - began)


@contextmanager
def running(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run each in a thread until the end of the block."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_readers_notice_nothing_of_switches_under_writes(world: World) -> None:
    documents = size(ci=300, proof=200_000)
    writes_a_second = size(ci=40, proof=200)
    written = 0

    def write(stop: threading.Event) -> None:
        nonlocal written
        while not stop.wait(10 / writes_a_second):
            world.couch.bulk({"_id": f"new-{written + n}", "n": n} for n in range(10))
            written += 10

    daemon = rebuilt.start(world, "postgres", "elasticsearch", documents=documents)
    with psycopg.connect(world.postgres_dsn, autocommit=True) as table, requests.Session() as session:

        def count_rows() -> int:
            ((count,),) = table.execute("select count(*) from cases").fetchall()
            return int(count)

        def count_hits() -> int:
            answer = session.get(f"{world.elasticsearch_url}/{world.alias('cases')}/_count", timeout=60)
            answer.raise_for_status()
            return int(answer.json()["count"])

        rows, hits = Reader(count_rows), Reader(count_hits)
        with running(write, rows.read, hits.read):
            began = time.monotonic()
            daemon.ask_here("rebuild", "cases", "--switch", "manual")
            rebuilt.wait(daemon, "ready", seconds=1800)
            built_seconds = time.monotonic() - began
            first, first_hit = len(rows.took), len(hits.took)
            ways = []
            for number in range(size(ci=2, proof=20)):
                way, state = (("switch", "switched"), ("rollback", "rolled-back"))[number % 2]
                began = time.monotonic()
                with psycopg.connect(world.postgres_dsn) as report:
                    if proving() and number == 2:
                        report.execute("select count(*) from cases")
                    daemon.command_here("rebuild", way, "cases")
                    if proving() and number == 2:
                        time.sleep(REPORT_SECONDS)
                        began = time.monotonic()  # it can't end before the report
                rebuilt.wait(daemon, state)
                ways.append(time.monotonic() - began)
                daemon.wait_for(lambda: live(daemon), seconds=300)
        daemon.wait_for(lambda: rebuilt.differences(world, "postgres", is_next=len(ways) % 2 == 1) == {})
    for reader in (rows, hits):
        assert reader.errors == []
        assert min(reader.counts) >= documents
        drops = [(a, b) for a, b in zip(reader.counts, reader.counts[1:], strict=False) if b < a]
        assert drops == [], "no reader sees what is older than what it has seen"
    blocked, hits_blocked = max(rows.took[first:]), max(hits.took[first_hit:])
    print(
        f"\n{documents:,} documents built in {built_seconds:.0f} s beside {writes_a_second} writes/s; "
        f"{len(ways)} switches, median {sorted(ways)[len(ways) // 2]:.1f} s, longest {max(ways):.1f} s; "
        f"readings of PostgreSQL: {len(rows.took)}, 0 errors, longest {blocked:.3f} s during switches, "
        f"{max(rows.took[:first]):.3f} s before; of Elasticsearch: {len(hits.took)}, 0 errors, "
        f"longest {hits_blocked:.3f} s during switches, {max(hits.took[:first_hit]):.3f} s before"
    )
    assert not proving() or (blocked <= 0.2 and max(ways) <= 2.0)
    assert daemon.command("verify", "cases").returncode == 0
    (other,) = {each["pillow"] for each in daemon.ask_here("status")["pillows"]} - {"cases"}
    assert daemon.command("verify", other).returncode == 0
    assert daemon.stop() == 0
