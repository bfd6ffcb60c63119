"""No turn of the hub waits for the disk: traced by greenlet switches, as the whole daemon is."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import contextmanager

import gevent
import greenlet
import pytest
from gevent import monkey

from checkpoints import POD, Checkpoint, CheckpointStore, Seq, TailKey, Tracker

SLOW_SECONDS = 0.3
THREAD = monkey.get_original("threading", "get_ident")
#: What waits for the disk does so every time; a turn that another process held up is short the next time.
ATTEMPTS = 5


class Turns:
    """How long each greenlet but the hub ran without giving way."""

    def __init__(self):
        self.longest = 0.0
        self.count = 0
        self._began = time.monotonic()

    def __call__(self, _event, switched):
        origin, _ = switched
        now = time.monotonic()
        if origin is not gevent.get_hub():  # the hub's own time is waiting for somebody to have work
            self.count += 1
            self.longest = max(self.longest, now - self._began)
        self._began = now


@contextmanager
def traced():
    gevent.sleep(0)
    turns = Turns()
    before = greenlet.settrace(turns)
    try:
        yield turns
        gevent.sleep(0)
    finally:
        greenlet.settrace(before)


@contextmanager
def ticking():
    """Another greenlet that wants to run all the time. Gives how often it did."""
    ticks = []

    def tick():
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.005)

    greenlets = gevent.spawn(tick)
    try:
        yield ticks
    finally:
        greenlets.kill()


def sync(path):
    with POD(path, {f"k{number}": number for number in range(100)}, file_size=10) as pod:
        yield
        pod["k1"] = 2
        pod.sync()


def sync_by_number(path):
    with POD(path, sync_at=10) as pod:
        yield
        for number in range(10):
            pod["k"] = number


def sync_by_time(path):
    with POD(path, sync_interval=0.01) as pod:
        yield
        pod["k"] = 1
        while pod.dirty():
            gevent.sleep(0.01)


def try_tasks(path):
    with Tracker(path) as tracker:
        tracker.add("a")
        tracker.sync()
        yield
        assert list(tracker.try_keys()) == ["a"]


def save_checkpoints(path):
    with CheckpointStore(path) as store:
        checkpoint = Checkpoint(seq=Seq.of("1-" + "x" * 4000))
        keys = [TailKey(f"pillow {number}", "couch/db") for number in range(4)]
        for key in keys:
            store.save(key, checkpoint)
        yield
        gevent.joinall([gevent.spawn(store.save, key, checkpoint) for key in keys], raise_error=True)


def remove_and_add_again(path):
    with POD(path, {f"k{number}": number for number in range(4)}, file_size=2) as pod:
        pod.sync()
        yield
        del pod["k1"]
        pod["k4"] = 4
        pod.revert()
        del pod["k1"]
        pod.sync()


WORK = [sync, sync_by_number, sync_by_time, try_tasks, save_checkpoints, remove_and_add_again]


@pytest.mark.parametrize("work", WORK)
def test_no_turn_of_the_hub_waits_for_a_slow_disk(tmp_path, slow_disk, work):
    """Each fsync takes 0.3 s; nobody waits for it but who asked for it."""

    def longest(path):
        steps = work(path)
        next(steps)
        slow_disk(SLOW_SECONDS)
        with ticking() as ticks, traced() as turns:
            began = time.monotonic()
            for _ in steps:
                pass
            took = time.monotonic() - began
        slow_disk(0)
        assert took > 2 * SLOW_SECONDS, "it did not wait for the disk at all"
        assert turns.count > 20
        gaps = [after - before for before, after in itertools.pairwise(ticks)]
        return max(turns.longest, *gaps)

    assert any(longest(tmp_path / str(attempt)) < SLOW_SECONDS / 2 for attempt in range(ATTEMPTS))


@pytest.mark.parametrize("kind", [POD, Tracker])
def test_opening_a_large_store_is_no_turn_of_the_hub_either(tmp_path, kind):
    with kind(tmp_path, durable=False) as pod:
        entry = {"_tries": 0, "_done": False, "_aborted": False, "note": "x" * 100}
        pod.update([(f"k{number}", entry) for number in range(20_000)])

    def longest():
        with traced() as turns:
            kind(tmp_path).close()
        return turns.longest

    assert any(longest() < 0.05 for _ in range(ATTEMPTS))


@pytest.fixture
def syncing_threads(monkeypatch):
    """The threads that waited for the disk."""
    threads = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (threads.add(THREAD()), fsync(fd)))
    return threads


def test_making_a_new_store_syncs_its_parents_off_the_hub(tmp_path, syncing_threads):
    POD(tmp_path / "a" / "b").close()
    assert syncing_threads
    assert THREAD() not in syncing_threads


def test_keeping_a_damaged_journal_is_off_the_hub_too(tmp_path, syncing_threads):
    path = tmp_path / "x"
    with CheckpointStore(path) as store:
        store.save(TailKey("a", "b"), Checkpoint(seq=Seq.of("1-x")))
    (path / "journal").write_text("damaged")
    syncing_threads.clear()
    CheckpointStore(path).close()
    assert (path / "journal.damaged-1").exists()
    assert syncing_threads
    assert THREAD() not in syncing_threads


def test_the_trace_would_see_a_turn_that_waits(tmp_path):
    with traced() as turns:
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:
            pass
    assert turns.longest > 0.09
