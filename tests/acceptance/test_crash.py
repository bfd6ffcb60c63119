"""Killed, stopped, started again: every target equals the source, and little is sent twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.wire import Sent
from tests.acceptance.world import Runs, World, live
from tests.support.sizes import proving, size
from tests.support.waiting import wait_until

#: One of our documents weighs at least as much, alone and with the frame of its row.
DOCUMENT_BYTES = 450
#: Of the code: rows between two positions, documents of one `_bulk_get`, bytes of one take from the
#: queue and of one batch of the feed.
INTERVAL, GROUP, BATCH_BYTES = 100, 300, 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Settings that bound what is on its way at one moment.

    Attributes:
        max_uncheckpointed, page, queue_bytes, max_docs, fetches: as in the configuration.
    """

    max_uncheckpointed: int = 1000
    page: int = 2000
    queue_bytes: int = 2**20
    max_docs: int = 1000
    fetches: int = 4

    def pillow(self, documents: str) -> dict[str, Any]:
        source = {"documents": documents, "page": self.page, "queue": f"{self.queue_bytes // 1024}KiB"}
        return {"source": source, "batch": {"max_docs": self.max_docs}}

    @property
    def read_ahead(self) -> int:
        """Changes that were sent and not yet given to the pusher, at most.

        In the pipeline's hands (one take) and in the queue; in fetches that run, wait for an earlier
        one, or are to be sent; in the page that is being read, of which the next begins where it ends.
        """
        segment = INTERVAL
        queue = self.queue_bytes // DOCUMENT_BYTES + segment
        taken = min(BATCH_BYTES, self.queue_bytes) // DOCUMENT_BYTES + segment
        groups = (2 * self.fetches + 1) * GROUP
        return taken + queue + groups + self.page

    @property
    def in_flight(self) -> int:
        """Changes in the batch that is written, and in the one that grows meanwhile."""
        return 2 * self.max_docs

    @property
    def again(self) -> int:
        """Changes that may be sent again after a crash: acknowledged and not saved, or on their way.

        Acknowledged ones count as far as there is a position to save, so a segment comes on top.
        """
        return self.max_uncheckpointed + INTERVAL + self.in_flight + self.read_ahead


#: As long as a busy machine takes for all documents, and more.
PATIENCE_SECONDS = size(ci=100, proof=500)

#: In CI everything is smaller, so that several crashes fit into few documents.
SMALL = Bounds(max_uncheckpointed=100, page=100, queue_bytes=32_768, max_docs=100, fetches=1)
BOUNDS = Bounds() if proving() else SMALL


#: So slow a line that a few documents still last until whoever waits for a share of them has noticed.
LINE_BYTES_PER_SECOND = None if proving() else 600_000


def shares(*in_ci: float) -> Sequence[float]:
    """How much is written when the daemon is ended, run after run."""
    return (0.05, 0.3, 0.6) if proving() else in_ci


class Crashing:
    """A daemon with one pillow `cases`, killed and started again while it catches up."""

    def __init__(self, world: World, documents: str, *targets: str) -> None:
        self.world = world
        self.count = size(ci=4_000, proof=100_000)
        self.targets = targets
        world.fill(self.count)
        world.connections["couch"]["fetches"] = BOUNDS.fetches
        settings = BOUNDS.pillow(documents)
        self.daemon: Pillowd = world.pillowd(
            {"cases": world.pillow("cases", *targets, **settings)},
            checkpoints={"max_uncheckpointed": BOUNDS.max_uncheckpointed},
        )
        self.runs = Runs(world.proxy)

    @contextmanager
    def run_until(self, share: float) -> Iterator[Pillowd]:
        """Runs the daemon until so much stands in PostgreSQL; it must have ended when the block has."""
        self.world.proxy.bytes_per_second = LINE_BYTES_PER_SECOND
        self.daemon.start()
        wanted = int(share * self.count)
        self.daemon.wait_for(lambda: self.world.written("cases") >= wanted, seconds=PATIENCE_SECONDS)
        yield self.daemon
        self.daemon.ended()
        self.runs.ended()

    def finish(self) -> list[Sent]:
        """Runs it until it is caught up, compares, and stops it; what each run was sent."""
        self.world.proxy.bytes_per_second = None
        self.daemon.start()
        self.daemon.wait_for(lambda: live(self.daemon), seconds=PATIENCE_SECONDS)
        assert self.world.differences("cases", *self.targets) == {}
        assert self.world.written("cases") == self.count
        assert self.daemon.stop() == 0
        self.runs.ended()
        return self.runs.sent()


def _totals(run: Sent) -> tuple[int, int]:
    return run.rows.total(), run.documents.total()


def again(runs: Sequence[Sent]) -> list[tuple[int, int]]:
    """Rows and documents that each restart was sent again."""
    return [run.again(runs[:number]) for number, run in enumerate(runs) if number]


@pytest.mark.timeout(size(ci=300, proof=2000))
@pytest.mark.parametrize("documents", ["bulk_get", "include_docs"])
def test_three_kills_lose_nothing_and_little_is_sent_again(world: World, documents: str) -> None:
    """Into three targets at once. Each kill comes at another moment of the work."""
    crashing = Crashing(world, documents)
    for share in shares(0.05, 0.3, 0.6) if documents == "bulk_get" else shares(0.3):
        with crashing.run_until(share) as daemon:
            time.sleep(share / 10)
            daemon.signal(signal.SIGKILL)
    repeated = again(crashing.finish())
    print(
        f"\n{documents}: kill -9, {crashing.count} documents, again (rows, documents): {repeated}, "
        f"bound {BOUNDS.again}"
    )
    assert max(rows for rows, _ in repeated) <= BOUNDS.again < crashing.count / 2
    assert max(found for _, found in repeated) <= BOUNDS.again


@pytest.mark.timeout(size(ci=300, proof=2000))
@pytest.mark.parametrize("documents", ["bulk_get", "include_docs"])
def test_a_stop_at_full_load_is_quick_and_nothing_is_sent_again(world: World, documents: str) -> None:
    crashing = Crashing(world, documents)
    seconds: list[float] = []
    for share in shares(0.3):
        with crashing.run_until(share) as daemon:
            assert not live(daemon), "it was at work"
            daemon.signal(signal.SIGTERM)
            began = time.monotonic()
            assert daemon.ended() == 0
            seconds.append(round(time.monotonic() - began, 2))
    runs = crashing.finish()

    print(
        f"\n{documents}: SIGTERM, exit 0 after {seconds} s; rows of each run: "
        f"{[run.rows.total() for run in runs]}"
    )
    assert max(seconds) < size(ci=30, proof=5)
    assert again(runs) == [(0, 0)] * len(seconds)
    assert [sum(part) for part in zip(*map(_totals, runs), strict=True)] == [crashing.count] * 2


@pytest.mark.timeout(size(ci=300, proof=2000))
@pytest.mark.parametrize("documents", ["bulk_get", pytest.param("include_docs", marks=pytest.mark.proof)])
def test_after_a_kill_no_row_in_postgresql_is_written_twice(world: World, documents: str) -> None:
    """Alone it keeps the checkpoint in the rows' transactions: what is there is never written again."""
    crashing = Crashing(world, documents, "postgres")
    stand: list[dict[str, tuple[str, str]]] = []
    for share in shares(0.1, 0.5):
        with crashing.run_until(share) as daemon:
            daemon.signal(signal.SIGKILL)
        wait_until(lambda: not _writers(world))
        stand.append(_written(world))
    repeated = again(crashing.finish())

    last = _written(world)
    print(
        f"\n{documents} into PostgreSQL alone: kill -9 at {[len(each) for each in stand]} rows, "
        f"again (rows, documents): {repeated}, bound {BOUNDS.in_flight + BOUNDS.read_ahead}"
    )
    assert [{id: last[id] for id in each} == each for each in stand] == [True] * len(stand)
    assert max(rows for rows, _ in repeated) <= BOUNDS.in_flight + BOUNDS.read_ahead + INTERVAL


def _writers(world: World) -> int:
    """Connections of pillowd: the server may yet commit what a killed client had sent."""
    with psycopg.connect(world.postgres_dsn) as connection:
        found = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name like 'pillowd%'"
        ).fetchone()
    return int(found[0]) if found else 0


def _written(world: World) -> dict[str, tuple[str, str]]:
    """By which transaction each row was written, and where it lies."""
    with psycopg.connect(world.postgres_dsn) as connection:
        rows = connection.execute("select _id, xmin::text, ctid::text from cases").fetchall()
    return {id: (transaction, place) for id, transaction, place in rows}
