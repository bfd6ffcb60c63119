"""A load whose workers crash or are killed, while the source is written to."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from random import Random
from typing import Any

import gevent
import pytest
import requests
from gevent.event import Event

from pillows.parallel import protocol
from pillows.parallel.chunk_pool import ChunkPool
from pillows.parallel.pool import WorkerPool
from pillows.runtime.status import State
from tests.integration.worker_load import DOCUMENTS, Load
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import proving, size

#: At full size a load takes minutes.
pytestmark = pytest.mark.timeout(size(ci=300, proof=1800))

COMPLETE = {f"d{n:06}": n for n in range(DOCUMENTS)}


def test_a_document_that_crashes_workers_becomes_a_dead_letter(start_load):
    """At most 15 workers die of it, the daemon does not, and a retry has a worker of its own."""
    load = start_load("""
        load: { workers: 1 }
        transform: { python: "FUNCTIONS:crash" }
    """)
    load.until_live()
    assert load.numbers == {id: n for id, n in COMPLETE.items() if n != 77}
    (letter,) = load.recorder.of("dead_letter")
    assert letter["id"] == "d000077"
    assert "killed the worker: crashed (SIGSEGV)" in letter["error"]
    ends = load.recorder.of("worker_ended")
    assert {each["cause"] for each in ends} == {"crashed"}
    assert len(ends) <= 15
    load.services.dead_letters.retry(load.key, [("-", "d000077")])
    load.until(lambda: len(load.recorder.of("dead_letter")) == 2)
    assert len(load.recorder.of("worker_ended")) > len(ends)


@pytest.mark.proof
def test_a_document_that_takes_all_memory_becomes_a_dead_letter(start_load):
    """However little the machine has left: no worker is ended by the kernel, and the daemon is not."""
    load = start_load("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:devour" }
    """)
    load.until_live()
    assert load.numbers == {id: n for id, n in COMPLETE.items() if n != 77}
    (letter,) = load.recorder.of("dead_letter")
    assert letter["id"] == "d000077"
    assert "killed the worker: memory (a task may take " in letter["error"]
    assert {each["cause"] for each in load.recorder.of("worker_ended")} == {"memory"}


def time_retakes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each chunk of a worker that has died waits until another one takes it, in seconds.

    While no worker is ready, because all were killed, there is none that could.
    """
    judge, handle = ChunkPool._judge, WorkerPool._handle
    lost_at: dict[Any, float] = {}
    waited: list[float] = []

    def judging(pool: ChunkPool, task: Any, ending: Any) -> None:
        lost_at[id(task.outcomes), task.begin] = time.monotonic()
        judge(pool, task, ending)

    def handling(pool: WorkerPool, worker: Any, message: Any) -> None:
        if isinstance(message, protocol.Ready) and not any(each.is_ready for each in pool._workers):
            lost_at.update(dict.fromkeys(lost_at, time.monotonic()))
        if isinstance(message, protocol.Take) and isinstance(pool._events, ChunkPool):
            task = pool._events._tasks[message.number]
            if at := lost_at.pop((id(task.outcomes), task.begin), None):
                waited.append(time.monotonic() - at)
        handle(pool, worker, message)

    monkeypatch.setattr(ChunkPool, "_judge", judging)
    monkeypatch.setattr(WorkerPool, "_handle", handling)
    return waited


def test_workers_killed_from_outside_lose_nothing_and_make_no_dead_letter(start_load, monkeypatch):
    waited = time_retakes(monkeypatch)
    load = start_load("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """)
    killed = kill_workers(load, size(ci=3, proof=300))
    load.until_live()
    assert load.numbers == COMPLETE
    assert not load.recorder.of("dead_letter")
    assert {each["cause"] for each in load.recorder.of("worker_ended")} == {"killed"}
    longest = max(waited, default=0)
    print(f"\n{killed} workers killed; {len(waited)} chunks taken again, after {longest:.2f} s at most")
    assert not proving() or (killed == 300 and 0 < longest < 1)


def kill_workers(load: Load, times: int) -> int:
    """Kills one worker after another, whatever it does at the moment. Returns how many before the head."""
    random, killed = Random(times), 0
    for _ in range(times):
        load.until(lambda: load.workers or load.tail.state is State.LIVE)
        for pid in random.sample(load.workers, 1) if load.workers else ():
            os.kill(pid, signal.SIGKILL)
            killed += 1
        gevent.sleep(random.uniform(0.0, size(ci=2.0, proof=1.2)))
    return killed


def test_b5_changes_during_the_load_come_through_the_feed_and_none_is_lost(start_load, couch_db):
    """Updates, deletes, conflicts and documents that come back, while workers and the tail are killed."""
    random, writing = Random(2026), Event()

    def write():
        while not writing.is_set():
            id = f"d{random.randrange(DOCUMENTS):06}"
            kind = random.random()
            if kind < 0.6:
                couch_db.put(id, {"n": random.randrange(10**6)})
            elif kind < 0.9:
                with suppress(requests.HTTPError):  # it is deleted already
                    couch_db.delete(id)
            else:
                couch_db.bulk([{"_id": id, "_rev": f"{random.randrange(1, 9)}-{random.randrange(16**8):08x}",
                                "n": random.randrange(10**6)}], new_edits=False)  # fmt: skip
            gevent.sleep(size(ci=0.02, proof=0.002))

    writer = gevent.spawn(write)
    pillow = """
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """
    for _ in range(size(ci=2, proof=20)):
        kill_workers(start_load(pillow), size(ci=1, proof=10))
    load = start_load(pillow)  # the former are killed, as SIGKILL does it
    load.until_live()
    writing.set()
    writer.get()
    expected = {id: doc["n"] for id, doc in documents_of(couch_db).items()}
    load.until(lambda: load.numbers == expected)
    assert not load.recorder.of("dead_letter")


def documents_of(couch_db: CouchDatabase) -> dict[str, dict[str, Any]]:
    rows = couch_db.request("GET", "/_all_docs", params={"include_docs": "true"}).json()["rows"]
    return {row["id"]: row["doc"] for row in rows}
