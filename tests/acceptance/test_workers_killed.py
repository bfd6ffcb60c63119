"""Loads with worker processes while workers and daemons die: nothing is lost, and no process is left."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psutil
import psycopg
import pytest
import requests

from pillows.delivery.batcher import BatchOptions
from pillows.parallel.chunks import MAX_CHANGES
from tests.acceptance.loads import configure, workers_of
from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, complete, live
from tests.support.waiting import wait_until

#: Each needs more than the 10,000 changes behind which workers are started.
pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

#: What a writer does per second.
WRITES_A_SECOND = 500


def send(number: int, pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)


def pick_worker(daemon: Pillowd, chance: random.Random) -> int:
    """Waits for workers, and returns one of them."""
    found: list[int] = []

    def find() -> list[int]:
        found[:] = workers_of(daemon)
        return found

    daemon.wait_for(find)
    return chance.choice(found)


def load(daemon: Pillowd, world: World, *, rows: int) -> None:
    """Starts the daemon, and waits until workers have filled so many rows more."""
    before = world.written("cases")
    daemon.start()
    daemon.wait_for(lambda: workers_of(daemon) and world.written("cases") >= before + rows)


@contextmanager
def writing(world: World, chance: random.Random) -> Iterator[None]:
    """Updates, deletes, conflicts and documents that come back, in another thread."""
    stop = threading.Event()
    ids = [row["id"] for row in world.couch.request("GET", "/_all_docs").json()["rows"]]

    def write_some() -> None:
        answer = world.couch.request(
            "POST", "/_all_docs", json={"keys": chance.sample(ids, WRITES_A_SECOND // 10)}
        )
        plain, conflicts = [], []
        for row in answer.json()["rows"]:
            document = {"_id": row["key"], "_rev": row["value"]["rev"], "n": chance.randrange(10**6)}
            kind = chance.random()
            if row["value"].get("deleted"):
                plain.append({name: document[name] for name in ("_id", "n")})  # it comes back
            elif kind < 0.2:
                plain.append({"_id": document["_id"], "_rev": document["_rev"], "_deleted": True})
            elif kind < 0.3:
                generation = int(document["_rev"].split("-")[0])
                conflicts.append(document | {"_rev": f"{generation}-{chance.randrange(16**32):032x}"})
            else:
                plain.append(document)
        world.couch.bulk(plain)
        world.couch.bulk(conflicts, new_edits=False)

    def write() -> None:
        while not stop.wait(0.1):
            with suppress(requests.RequestException):  # of a machine that is too busy; the next one writes on
                write_some()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_kills_of_workers_and_daemons_under_writes_lose_nothing(world: World) -> None:
    """300 kills and 20 stops of workers, 50 kills of the daemon."""
    chance, killed, stopped = random.Random(16), 0, 0
    world.fill(200_000)
    daemon = configure(world, isolate=True)
    with writing(world, chance):
        for cycle in range(50):
            daemon.start()
            for _ in range(6):
                time.sleep(chance.random())
                send(signal.SIGKILL, pick_worker(daemon, chance))
                killed += 1
            if cycle % 5 < 2:  # for a while, or until the daemon is killed
                pid = pick_worker(daemon, chance)
                send(signal.SIGSTOP, pid)
                stopped += 1
                time.sleep(chance.random() * 3)
                if cycle % 5:
                    send(signal.SIGCONT, pid)
            workers = workers_of(daemon)
            daemon.signal(signal.SIGKILL)
            assert daemon.ended() == -signal.SIGKILL
            for pid in workers:  # one that was stopped while it started does not know of its parent's end yet
                send(signal.SIGCONT, pid)
            wait_until(lambda: not any(map(psutil.pid_exists, workers)), seconds=10)  # noqa: B023 - called at once
    daemon.start()
    daemon.wait_for(lambda: complete(daemon), seconds=2400)
    daemon.wait_for(lambda: world.differences("cases", "postgres") == {}, seconds=120)
    assert daemon.status("cases")["dead_letters"] == 0
    print(f"\n{killed} workers killed, {stopped} stopped, 50 daemons killed: equal")
    assert (killed, stopped) == (300, 20)
    assert daemon.stop() == 0


def test_a_daemon_that_is_killed_reads_few_chunks_again(world: World) -> None:
    """These are at most two chunks of each worker, a batch that grows and one in flight."""
    kills, workers, chunk, batch = 10, 2, MAX_CHANGES, BatchOptions().max_docs
    world.fill(100_000)
    daemon = configure(world, workers=workers, seconds=0.0002)
    for number in range(kills):
        load(daemon, world, rows=1000 + 317 * number)
        daemon.signal(signal.SIGKILL)
        daemon.ended()
    daemon.start()
    daemon.wait_for(lambda: complete(daemon), seconds=600)
    assert world.differences("cases", "postgres") == {}
    carried = [id for each in world.folder.glob("done-*") for id in each.read_text().split()]
    again = len(carried) - len(set(carried))
    print(f"\n{again / kills:.0f} documents read again after a kill, on average")
    assert again <= kills * (2 * workers * chunk + 2 * batch)
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_a_load_leaves_no_process_and_the_next_start_goes_on(world: World, number: int) -> None:
    world.fill(40_000)
    daemon = configure(world, seconds=0.0005)
    took = []
    for rows in (500, 3000, 9000):
        load(daemon, world, rows=rows)
        workers = workers_of(daemon)
        began = time.monotonic()
        daemon.signal(number)
        assert daemon.ended() == 0
        took.append(time.monotonic() - began)
        assert not any(map(psutil.pid_exists, workers))
    daemon.start()
    daemon.wait_for(lambda: complete(daemon), seconds=600)
    assert world.differences("cases", "postgres") == {}
    runs = [each.read_text().split() for each in world.folder.glob("done-*")]
    print(f"\nstopped in {max(took):.1f} s at most; {sum(map(len, runs)):,} of 40,000 documents were carried")
    assert max(took) < 10
    assert sum(map(len, runs)) < 1.2 * 40_000
    assert daemon.stop() == 0


def test_a_second_daemon_that_takes_over_a_load_has_the_fence_at_once(world: World) -> None:
    """Eight workers are in the middle of chunks; from then on nothing of the first daemon is accepted."""
    world.fill(60_000)
    first, second = (
        configure(world, workers=8, seconds=0.002, transform={"python": "load_functions:signed"})
        for _ in range(2)
    )
    load(first, world, rows=2000)
    with psycopg.connect(world.postgres_dsn, autocommit=True) as db:
        db.execute("create table written (daemon int, at timestamptz default clock_timestamp())")
        db.execute("create table claimed (what text, at timestamptz default clock_timestamp())")
        db.execute("""
            create function note_row() returns trigger language plpgsql as $$
                begin insert into written values ((new.doc->>'daemon')::int); return new; end $$;
            create function note_claim() returns trigger language plpgsql as $$
                begin insert into claimed values (tg_level); return new; end $$;
            create trigger note before insert or update on cases for each row execute function note_row();
            create trigger asks before insert on pillowd_checkpoint
                for each statement execute function note_claim();
            create trigger gets after update of fence on pillowd_checkpoint
                for each row execute function note_claim();
        """)
        time.sleep(2)
        second.start()
        second.wait_for(lambda: db.execute("select from claimed where what = 'ROW'").fetchall())
        first.wait_for(lambda: first.state("cases") == "failed")
        time.sleep(5)
        claimed = dict(db.execute("select what, min(at) from claimed group by what").fetchall())
        written = db.execute(
            "select count(*), max(at), max(at - before) from (select at, lag(at) over (order by at) as before"
            " from written where daemon = %s) as one",
            [first.child.pid],
        )
        ((rows, last_at, pause),) = written.fetchall()
    assert rows > 1000
    assert "Another pillowd has acquired" in first.status("cases")["reason"]
    waited = claimed["ROW"] - claimed["STATEMENT"]
    print(
        f"\nthe fence after {waited.total_seconds():.3f} s, a batch took up to {pause.total_seconds():.2f} s"
    )
    assert waited < pause + timedelta(seconds=0.5)
    assert last_at <= claimed["ROW"]
    second.wait_for(lambda: complete(second), seconds=900)
    assert live(second)
    assert [each.stop() for each in (first, second)] == [0, 0]
