"""Readers that join a shared feed while its last ones leave."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.event import Event

from checkpoints import Seq
from pillows.feed.shared.shared_feed import GATHER_SECONDS, SharedFeed
from pillows.feed.shared.subscribed_feed import SubscribedFeed
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
    """The new group's reading once went on without a member, and served the next reader wrongly."""
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


class Told:
    """A feed that gives what a test tells it, whatever position it is asked for."""

    identity = last_byte_at = trouble = None

    def __init__(self) -> None:
        self.since: list[str] = []
        self.ready: list[ChangeBatch] = []

    def tell(self, seq: str, *, asked_at: float | None = None) -> None:
        self.ready.append(ChangeBatch(changes=(), seq=Seq.of(seq), asked_at=asked_at))

    def batches(self, since: Seq, identity: object, stop: Event):
        self.since.append(str(since))
        while not stop.wait(0.001):
            while self.ready:
                yield self.ready.pop(0)

    def close(self) -> None:
        pass


class Joining:
    """A reader that joins a shared feed which somebody else reads."""

    def __init__(self, *, max_lag_bytes: int = 10**6) -> None:
        self.clock = FakeClock(auto=False)
        shared: Any = Told()
        own: Any = Told()
        self.shared, self.own = shared, own
        self.group = SharedFeed(
            lambda _: shared, clock=self.clock, overlap_seconds=60.0, max_lag_bytes=max_lag_bytes
        )
        self.first = self.group.join(JoinPoint(0, Seq.of("1-first")), None, lambda _: True)
        wait_until(lambda: shared.since)
        self.clock.advance(100)
        self.feed: Any = SubscribedFeed(own, self.group, lambda _: True)
        self.stop = Event()
        self.seqs: list[str] = []
        self.reader = gevent.spawn(self._take)
        own.tell("2-own", asked_at=self.clock.monotonic())
        wait_until(lambda: self.clock.waiting)  # the shared feed gathers

    def _take(self) -> None:
        for batch in self.feed.batches(Seq.BEGINNING, None, self.stop):
            self.seqs += [str(batch.seq)] if batch.seq else []

    def gathered(self) -> None:
        self.clock.advance(GATHER_SECONDS)
        wait_until(lambda: len(self.shared.since) == 2)

    def sees(self, seq: str) -> None:
        wait_until(lambda: seq in self.seqs, worker=self.reader)

    def end(self) -> list[str]:
        self.stop.set()
        self.reader.get(timeout=60)
        self.group.leave(self.first)
        return self.seqs


def test_who_joins_reads_alone_until_the_shared_feed_is_at_the_head_with_it():
    """Once it waited for other readers that might join, and new changes waited with it."""
    joining = Joining()
    joining.own.tell("3-while-it-gathers")
    joining.sees("3-while-it-gathers")
    joining.gathered()
    joining.shared.tell("2-again")
    joining.own.tell("4-while-it-reads-again")
    joining.sees("4-while-it-reads-again")
    assert "2-again" not in joining.seqs
    assert joining.feed._reading is joining.own, "its trouble is that of the feed that it reads"

    joining.shared.tell("4-head", asked_at=joining.clock.monotonic())
    joining.sees("4-head")
    assert joining.feed._reading is joining.shared
    joining.shared.tell("5-shared")
    joining.sees("5-shared")
    taken = joining.end()
    assert taken == [
        "2-own",
        "3-while-it-gathers",
        "4-while-it-reads-again",
        "1-first",  # where it joined: all that comes from there is read again
        "2-again",
        "4-head",
        "5-shared",
    ]


def test_who_joins_takes_batches_before_so_many_wait_that_it_would_have_to_leave():
    joining = Joining(max_lag_bytes=100)
    joining.gathered()
    joining.shared.ready.append(ChangeBatch(changes=(), seq=Seq.of("2-large"), size_bytes=60))
    joining.sees("2-large")
    assert joining.group.size == 2
    joining.end()


def test_who_can_not_join_after_all_reads_on_alone_without_a_break():
    joining = Joining()
    (subscriber,) = joining.group._joining
    subscriber.leave()
    joining.own.tell("3-own")
    joining.own.tell("4-own")
    joining.sees("4-own")
    assert (joining.group.size, joining.own.since) == (1, ["0"])
    joining.end()


def test_a_stop_while_it_joins_keeps_its_own_position():
    joining = Joining()
    joining.gathered()
    joining.own.tell("3-own")
    joining.sees("3-own")
    assert joining.end()[-1] == "3-own"
    assert joining.group.size == 0
