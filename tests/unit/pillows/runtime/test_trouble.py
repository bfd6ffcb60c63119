"""What a tail says of itself while a target refuses, and the source goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Seq, StoreWriteError
from pillows.delivery.batcher import BatchOptions
from pillows.errors import AwayError, PermanentError, RetryableError
from pillows.feed.base import DatabaseIdentity
from pillows.models import ChangeBatch
from pillows.observer import Observer
from pillows.progress.checkpointer import CheckpointOptions
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.runtime.status import State
from pillows.runtime.tail import SLOW_WRITE_SECONDS
from pillows.runtime.tail_monitor import TailMonitor
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


class BusyFeed(ListFeed):
    """A source that is written all the time: a change with every turn of the hub, after the given ones."""

    def batches(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        yield from self.queue
        number = 100
        while not stop.is_set():
            number += 1
            yield replace(batch(f"{number}-x", change(f"n{number}"), caught_up=True), pending=0)
            gevent.sleep(0.002)


def refuse(target: MemoryTransport, error: Callable[[], Exception]) -> None:
    """Let every write of a target fail from now on."""

    def fail(_batch: object) -> None:
        raise error()

    target.before_write = fail


@pytest.mark.parametrize(
    "error", [lambda: AwayError("503"), lambda: RetryableError("No space left"), lambda: StoreWriteError("x")]
)
def test_a6_a_tail_whose_target_refuses_is_never_live_however_busy_its_source_is(
    tmp_path: Path, running: Any, error: Callable[[], Exception]
) -> None:
    target = MemoryTransport("target")
    run = running(plan(tmp_path, BusyFeed(), target, batch=BatchOptions(max_docs=5)))
    run.until(lambda: run.tail.status().state is State.LIVE)
    refuse(target, error)
    run.until(lambda: run.tail.status().state is State.BACKING_OFF)
    for _ in range(100):
        gevent.sleep(0.003)
        status = run.tail.status()
        assert status.state is State.BACKING_OFF
        assert status.reason.startswith("target: ")
        assert (status.pending or 0) > 0


def test_a6_of_two_targets_the_good_one_does_not_end_the_trouble_of_the_other(
    tmp_path: Path, running: Any
) -> None:
    good, bad = MemoryTransport("good"), MemoryTransport("bad")
    refuse(bad, lambda: AwayError("503"))
    run = running(plan(tmp_path, BusyFeed(), good, bad, batch=BatchOptions(max_docs=5)))
    run.until(lambda: run.tail.status().state is State.BACKING_OFF)
    for _ in range(50):
        gevent.sleep(0.003)
        assert run.tail.status().state is State.BACKING_OFF
    bad.before_write = lambda _batch: None
    run.until(lambda: run.tail.status().state is State.LIVE)


def test_a6_a_tail_whose_target_does_not_answer_is_not_live(tmp_path: Path, running: Any) -> None:
    clock, target = FakeClock(auto=False), MemoryTransport("target")
    feed = ListFeed([batch("1-a", change("a"), caught_up=True)])
    run = running(plan(tmp_path, feed, target, clock=clock))
    run.until(lambda: run.tail.status().state is State.LIVE)
    assert run.tail.status().state is State.LIVE

    run.tail._run._writes_began.append(clock.monotonic())
    clock.advance(SLOW_WRITE_SECONDS)
    assert run.tail.status().state is State.CATCHING_UP
    assert run.tail.status().reason == "a batch has been written for 5 s"
    run.tail._run._writes_began.clear()
    assert run.tail.status().state is State.LIVE


def test_a6_lag_counts_what_is_not_acknowledged(tmp_path: Path, running: Any) -> None:
    target, go = MemoryTransport("target"), Event()
    target.before_write = lambda _batch: go.wait(60)
    feed = ListFeed([replace(batch("1-a", *(change(str(n)) for n in range(7)), caught_up=True), pending=3)])
    run = running(plan(tmp_path, feed, target))
    run.until(lambda: run.tail.status().pending == 10)
    go.set()
    run.until(lambda: run.tail.status().pending == 3)


def test_a6_a_state_directory_that_is_full_is_a_trouble_until_a_checkpoint_is_saved(
    tmp_path: Path, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = plan(
        tmp_path,
        BusyFeed(),
        MemoryTransport("target"),
        batch=BatchOptions(max_docs=5),
        checkpoints=CheckpointOptions(interval=0.05),
    )

    def fail(*_: object) -> None:
        raise StoreWriteError("No space left on device")

    run = running(parts)
    run.until(lambda: run.tail.status().state is State.LIVE)
    save = parts.store.save
    monkeypatch.setattr(parts.store, "save", fail)
    run.until(lambda: run.tail.status().state is State.BACKING_OFF)
    assert run.tail.status().reason == "checkpoint: No space left on device"
    monkeypatch.setattr(parts.store, "save", save)
    run.until(lambda: run.tail.status().state is State.LIVE)


# --- the parts


def monitored() -> tuple[TailMonitor, Retrier]:
    clock = FakeClock()
    monitor = TailMonitor(KEY, clock, Observer())
    return monitor, Retrier(KEY, StopAwareWaiter(clock, Event()), Observer(), monitor.note_trouble)


def test_a_refusal_for_good_ends_the_trouble() -> None:
    monitor, retrier = monitored()
    errors: list[Exception] = [RetryableError("busy"), PermanentError("bad")]

    def attempt() -> None:
        raise errors.pop(0)

    with pytest.raises(PermanentError):
        retrier.retry_write("target", attempt)
    assert monitor.state is State.CATCHING_UP


def test_the_newest_trouble_is_the_reason_and_each_ends_by_itself() -> None:
    monitor, _ = monitored()
    monitor.note_trouble("one", "one: 503")
    monitor.note_trouble("two", "two: 503")
    assert monitor.reason == "two: 503"
    monitor.note_trouble("two", "")
    assert (monitor.state, monitor.reason) == (State.BACKING_OFF, "one: 503")
    monitor.note_batch(batch("1-a"), None)
    assert monitor.state is State.BACKING_OFF
    monitor.note_trouble("one", "")
    assert (monitor.state, monitor.reason) == (State.CATCHING_UP, "")


def test_a_new_run_begins_without_the_trouble_of_the_last() -> None:
    monitor, _ = monitored()
    monitor.note_trouble("one", "one: 503")
    monitor.start()
    monitor.note_batch(batch("1-a"), None)
    assert monitor.state is State.CATCHING_UP


def test_the_feed_s_trouble_ends_with_a_batch_that_has_none() -> None:
    monitor, _ = monitored()
    monitor.note_batch(batch("1-a"), "source: 503")
    assert (monitor.state, monitor.reason) == (State.BACKING_OFF, "source: 503")
    monitor.note_batch(batch("1-a"), None)
    assert monitor.state is State.CATCHING_UP
