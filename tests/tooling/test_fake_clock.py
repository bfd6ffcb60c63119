"""The clock that tests wait on: no real time, and everybody wakes in order."""

from __future__ import annotations

import time

import gevent
from gevent.event import Event

from tests.support.clock import FakeClock


def test_an_hour_passes_at_once(clock):
    began = time.monotonic()

    assert clock.wait(Event(), 3600) is False
    assert clock.monotonic() == 4600
    assert time.monotonic() - began < 30


def test_waiters_wake_in_the_order_of_their_deadlines(clock):
    woken = []

    def worker(name, seconds):
        for _ in range(2):
            clock.wait(Event(), seconds)
            woken.append((name, clock.monotonic() - 1000))

    gevent.joinall([gevent.spawn(worker, "slow", 5), gevent.spawn(worker, "fast", 2)], raise_error=True)

    assert woken == [("fast", 2), ("fast", 4), ("slow", 5), ("slow", 10)]


def test_an_event_ends_the_wait_and_time_stands(clock):
    stop = Event()
    clock.auto = False
    waiting = gevent.spawn(clock.wait, stop, 60)
    gevent.idle()
    stop.set()

    assert waiting.get(timeout=60) is True
    assert clock.monotonic() == 1000
    assert clock.waiting == 0


def test_advance_wakes_those_whose_time_has_come():
    clock = FakeClock(auto=False)
    ticks = []

    def ticker():
        while not clock.wait(Event(), 5):
            ticks.append(clock.monotonic() - 1000)

    ticking = gevent.spawn(ticker)
    clock.advance(12)

    assert ticks == [5, 10]
    assert clock.monotonic() == 1012
    assert clock.waited == [5, 5, 5]
    ticking.kill()


def test_a_stop_set_by_another_greenlet_is_seen_before_time_passes(clock):
    stop = Event()
    waiting = gevent.spawn(clock.wait, stop, 60)
    gevent.spawn(stop.set)

    assert waiting.get(timeout=60) is True
    assert clock.monotonic() == 1000
