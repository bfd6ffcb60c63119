"""Batcher and pusher: bounded, ordered, loud."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from pillows.clock import SystemClock
from pillows.delivery.batcher import BatchOptions
from pillows.delivery.pusher import Pusher
from pillows.errors import StoppedError
from tests.support.waiting import let_others_run, wait_until


class Target:
    """Takes batches; holds each until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = Event()
        self.go.set()

    def write(self, items: list[str]) -> None:
        self.go.wait(60)
        self.batches.append(items)


@pytest.fixture
def target():
    return Target()


def pusher(target, **policy):
    return Pusher(target.write, BatchOptions(**policy), SystemClock())


def test_batches_are_full_and_in_order(target):
    pushing = pusher(target, max_docs=10)
    for n in range(25):
        pushing.push(str(n), 1)
    pushing.finish()

    assert [len(batch) for batch in target.batches] == [10, 10, 5]
    assert [n for batch in target.batches for n in batch] == [str(n) for n in range(25)]


def test_an_idle_writer_takes_the_first_item_at_once(target):
    pushing = pusher(target)
    pushing.push("a", 1)
    wait_until(lambda: target.batches == [["a"]])
    pushing.finish()


def test_the_next_batch_grows_while_one_is_written(target):
    target.go.clear()
    pushing = pusher(target)
    pushing.push("a", 1)
    let_others_run()
    for item in "bcd":
        pushing.push(item, 1)
    target.go.set()
    pushing.finish()

    assert target.batches == [["a"], ["b", "c", "d"]]


def test_a_batch_is_bounded_in_bytes_and_a_larger_item_goes_alone(target):
    pushing = pusher(target, max_bytes=100)
    for item, size in (("a", 60), ("b", 60), ("huge", 1000), ("c", 40), ("d", 40)):
        pushing.push(item, size)
    pushing.finish()

    assert target.batches == [["a"], ["b"], ["huge"], ["c", "d"]]


def test_push_waits_while_the_next_batch_is_full(target):
    target.go.clear()
    pushing = pusher(target, max_docs=2)
    pushed: list[int] = []

    def produce():
        for n in range(10):
            pushing.push(str(n), 1)
            pushed.append(n)

    producer = gevent.spawn(produce)
    wait_until(lambda: len(pushed) >= 4)
    let_others_run()
    # One batch in the writer's hands, one full, and the item that waits.
    assert len(pushed) == 4
    target.go.set()
    producer.join(60)
    pushing.finish()
    assert len(pushed) == 10


def test_an_error_of_the_writer_reaches_whoever_pushes_and_finishes():
    told: list[bool] = []

    def write(items):
        raise ValueError("no")

    pushing = Pusher(write, BatchOptions(max_docs=1), SystemClock(), on_error=lambda: told.append(True))
    pushing.push("a", 1)
    wait_until(lambda: told)

    with pytest.raises(ValueError, match="no"):
        pushing.push("b", 1)
    with pytest.raises(ValueError, match="no"):
        pushing.finish()
    assert told == [True]


def test_a_producer_that_waits_for_room_hears_of_the_error():
    failing = Event()

    def write(items):
        failing.wait(60)
        raise ValueError("no")

    pushing = Pusher(write, BatchOptions(max_docs=1), SystemClock())

    def produce():
        for n in range(5):
            pushing.push(str(n), 1)

    producer = gevent.spawn(produce)
    let_others_run()
    failing.set()

    with pytest.raises(ValueError, match="no"):
        producer.get(timeout=60)


def test_a_stop_in_the_writer_is_no_error_of_finish():
    def write(items):
        raise StoppedError

    pushing = Pusher(write, BatchOptions(), SystemClock())
    pushing.push("a", 1)

    pushing.finish()
