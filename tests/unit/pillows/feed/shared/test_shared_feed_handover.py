"""Readers that come while the last ones go."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.event import Event

from checkpoints import Seq
from pillows.feed.shared.shared_feed import SharedFeed
from pillows.feed.shared.subscriber import JoinPoint
from pillows.models import ChangeBatch
from tests.support.clock import FakeClock
from tests.support.waiting import wait_until


class Slow:
    """A feed that ends when the test lets it, as a connection may take a while to close."""

    identity = last_byte_at = trouble = None

    def __init__(self) -> None:
        self.since: Seq | None = None
        self.may_end = Event()

    def batches(self, since: Seq, identity: object, stop: Event):
        self.since = since
        try:
            while not stop.wait(0.001):
                yield ChangeBatch(changes=(), seq=since)
        finally:
            self.may_end.wait(60)

    def close(self) -> None:
        pass


def test_who_founds_a_group_while_the_last_one_ends_is_not_thrown_out_with_it():
    """Its reading went on without a member, and would have served whoever joined next from elsewhere."""
    feeds: list[Slow] = []

    def make_feed(_):
        feeds.append(Slow())
        return feeds[-1]

    clock = FakeClock(auto=False)
    group = SharedFeed(make_feed, clock=clock, overlap_seconds=60.0, max_lag_bytes=10**6)
    first = group.join(JoinPoint(clock.monotonic(), Seq.of("1-first")), None, lambda _: True)
    wait_until(lambda: feeds and feeds[0].since)
    leaving = gevent.spawn(group.leave, first)
    wait_until(lambda: not group.size)

    second = group.join(JoinPoint(clock.monotonic(), Seq.of("2-second")), None, lambda _: True)
    wait_until(lambda: len(feeds) == 2 and feeds[1].since)
    feeds[0].may_end.set()
    leaving.get(timeout=60)

    stop = Event()
    batches = second.batches(stop, lambda: False)
    assert [next(batches).seq for _ in range(3)] == [Seq.of("2-second")] * 3
    assert (second.left, group.size) == (False, 1)

    stop.set()
    batches.close()
    feeds[1].may_end.set()
    group.leave(second)
    assert group.size == 0


class Copies:
    """Reads a database of one change, of which the position `5-far` knows; `3-near` is a lagging copy's."""

    identity = last_byte_at = trouble = None

    def __init__(self) -> None:
        self.since: list[str] = []

    def batches(self, since: Seq, identity: object, stop: Event):
        self.since.append(str(since))
        while not stop.wait(0.001):
            yield ChangeBatch(changes=(), seq=None)

    def close(self) -> None:
        pass


def founded():
    """A group that reads from a position of a copy that is ahead."""
    clock = FakeClock(auto=False)
    feed: Any = Copies()
    group = SharedFeed(lambda _: feed, clock=clock, overlap_seconds=60.0, max_lag_bytes=10**6)
    founder = group.join(JoinPoint(clock.monotonic(), Seq.of("5-far")), None, lambda _: True)
    wait_until(lambda: feed.since == ["5-far"])
    return clock, feed, group, founder


def test_who_joins_at_an_equal_position_is_not_taken_back_to_one_that_covers_more():
    """The group held what a fresh copy says, then what a lagging one says; a later position may cover less.

    Whoever has only seen what the lagging copy has would never be told of what lies between the two.
    """
    clock, feed, group, founder = founded()
    clock.advance(70)
    group._hand_out(ChangeBatch(changes=(), seq=Seq.of("3-near"), asked_at=clock.monotonic()))

    now = clock.monotonic()
    equal = group.offer(None, Seq.of("3-near"), now)
    old = group.offer(None, Seq.of("9-other"), now)
    assert (str(equal.seq), str(old.seq)) == ("3-near", "5-far")
    lagging = group.join(equal, None, lambda _: True)
    other = group.join(old, None, lambda _: True)
    group._restart.set()
    wait_until(lambda: feed.since == ["5-far", "5-far"])

    assert (founder.left, other.left, lagging.left) == (False, False, True)
    assert group.size == 2
    for member in (founder, other):
        group.leave(member)


def test_who_joins_at_an_equal_position_reads_on_from_there():
    clock, feed, group, founder = founded()
    clock.advance(10)
    group._hand_out(ChangeBatch(changes=(), seq=Seq.of("6-next"), asked_at=clock.monotonic()))
    joined = group.join(group.offer(None, Seq.of("6-next"), clock.monotonic()), None, lambda _: True)
    group._restart.set()
    wait_until(lambda: feed.since == ["5-far", "6-next"])

    assert (founder.left, joined.left, group.size) == (False, False, 2)
    for member in (founder, joined):
        group.leave(member)
