"""Samples are spread over what passes, and bounded by the rate."""

from __future__ import annotations

import gevent
import pytest

from checkpoints import TailKey
from daemon.streams.taps import Stage, Taps, spread
from pillows.models import Change, DocumentRows
from pillows.observer import CompositeObserver, Observer
from tests.support.clock import FakeClock

A, B = TailKey("a", "couch/x"), TailKey("b", "couch/x")


def changes(count: int) -> list[Change]:
    return [Change(id=str(number), revs=("1-x",), leaf_version=1) for number in range(count)]


def taken(tap) -> list[str]:
    found = []
    while (sample := tap.next(0)) is not None:
        found.append(sample["id"])
    return found


def test_a_tap_gets_what_its_rate_allows():
    clock = FakeClock(auto=False)
    taps = Taps(clock)
    with taps.open(A, Stage.CHANGE, rate=10, values=False) as tap:
        taps.arrived(A, changes=changes(1000))
        assert taken(tap) == ["999"], "one at once"
        taps.arrived(A, changes=changes(1000))
        assert taken(tap) == []
        clock.advance(0.5)
        taps.arrived(A, changes=changes(1000))
        assert taken(tap) == ["199", "399", "599", "799", "999"]
        clock.advance(3600)
        taps.arrived(A, changes=changes(1000))
        assert len(taken(tap)) == 10, "an idle hour is not saved up"
        assert tap.passed == 4000


def test_a_slow_pillow_is_seen_whole_and_a_rate_below_one_waits():
    clock = FakeClock(auto=False)
    taps = Taps(clock)
    with taps.open(A, Stage.CHANGE, rate=0.5, values=False) as tap:
        seen = []
        for _ in range(8):
            taps.arrived(A, changes=changes(1))
            seen.append(len(taken(tap)))
            clock.advance(1)
    assert seen == [1, 0, 1, 0, 1, 0, 1, 0]


def test_a_tap_sees_its_own_tail_and_stage_while_it_is_open():
    taps = Taps(FakeClock(auto=False))
    document = DocumentRows(id="d", rev="1-x", leaf_version=1, rows={})
    with taps.open(A, Stage.ROWS, rate=100, values=False) as first:
        with taps.open(A, Stage.ROWS, rate=100, values=False) as second:
            taps.arrived(A, changes=changes(1))
            taps.transformed(B, documents=[document])
            taps.transformed(A, documents=[document])
            assert (taken(first), taken(second)) == (["d"], ["d"])
        taps.transformed(A, documents=[document])
        assert taken(second) == []
    taps.transformed(A, documents=[document])
    assert first.passed == 2


def test_a_reader_that_is_slow_misses_the_oldest():
    clock = FakeClock(auto=False)
    taps = Taps(clock)
    with taps.open(A, Stage.CHANGE, rate=1000, values=False) as tap:
        for _ in range(3):
            clock.advance(1)
            taps.arrived(A, changes=changes(1000))
        found = taken(tap)
    assert (len(found), found[-1]) == (100, "999")


def test_a_reader_waits_for_the_next_sample():
    clock = FakeClock()
    taps = Taps(clock)
    with taps.open(A, Stage.CHANGE, rate=10, values=False) as tap:
        assert tap.next(15) is None
        waiting = gevent.spawn(tap.next, 15)
        gevent.sleep(0)
        taps.arrived(A, changes=changes(1))
        assert (waiting.get() or {})["id"] == "0"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [9]), (2, [4, 9]), (3, [2, 5, 9]), (10, list(range(10))), (99, list(range(10)))],
)
def test_samples_are_spread(count, expected):
    assert list(spread(range(10), count)) == expected


def test_the_data_is_looked_at_while_a_tap_is_open():
    taps = Taps(FakeClock(auto=False))
    observer = CompositeObserver([Observer(), taps])
    assert not observer.data_observers
    with taps.open(A, Stage.ROWS, rate=1, values=False):
        with taps.open(B, Stage.CHANGE, rate=1, values=False):
            assert observer.data_observers == [taps]
        assert observer.data_observers == [taps]
    assert not observer.data_observers
