"""Feeds that share what they can, and whose events are their own."""

from __future__ import annotations

from typing import Any

from checkpoints import Seq, TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.couch.options import CouchConnection
from pillows.feed.options import SourceOptions
from pillows.feed.shared.pool import FeedPool, _SubscribersObserver
from pillows.feed.shared.shared_feed import ALONE_SECONDS, SharedFeed
from pillows.feed.shared.subscribed_feed import SubscribedFeed
from pillows.feed.shared.subscriber import JoinPoint
from pillows.observer import Observer, Rewind
from tests.support.clock import FakeClock

CONNECTION = CouchConnection(url="http://127.0.0.1:9")
ONE, OTHER = TailKey("one", "couch/db"), TailKey("other", "couch/db")


class Recorder(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[TailKey, str]] = []

    def retry(self, tail: TailKey, **details: Any) -> None:
        self.events.append((tail, details["error"]))

    def rewind(self, tail: TailKey, **details: Any) -> None:
        self.events.append((tail, details["reason"]))

    def warning(self, tail: TailKey, **details: Any) -> None:
        self.events.append((tail, details["event"]))


def source(**options: Any) -> SourceOptions:
    return SourceOptions(connection="c", database="db", **options)


def make_shared(clock: FakeClock) -> Any:
    def fail(_: object) -> Any:
        raise AssertionError("opens a connection")

    return SharedFeed(fail, clock=clock, overlap_seconds=60.0, max_lag_bytes=10**6)


def test_a9_an_event_of_a_shared_feed_is_reported_for_each_tail_that_reads_it():
    shared, recorder = make_shared(FakeClock(auto=False)), Recorder()
    shared._greenlet = object()
    for tail in (ONE, OTHER):
        shared.join(JoinPoint(0, Seq.BEGINNING), None, bool, tail)
    observer = _SubscribersObserver(recorder, shared)
    observer.retry(NO_TAIL, where="source", error="away", attempt=1, delay_seconds=1)
    observer.rewind(NO_TAIL, kind=Rewind.REPEATED, reason="rewound")
    observer.warning(NO_TAIL, event="source.stalled", details={})
    events = ("away", "rewound", "source.stalled")
    assert recorder.events == [(tail, event) for event in events for tail in (ONE, OTHER)]


def test_feeds_that_are_read_alike_share_and_the_last_one_takes_the_rest_with_it():
    pool = FeedPool(clock=FakeClock())
    one: Any
    other: Any
    one, other = (pool.open(CONNECTION, source(), tail=tail) for tail in (ONE, OTHER))
    apart: Any = pool.open(CONNECTION, source(page=1900), tail=ONE)
    assert isinstance(one, SubscribedFeed)
    assert one._shared is other._shared
    assert apart._shared is not one._shared
    assert one._own._couch is apart._own._couch
    for feed in (one, other, other, apart):  # closing twice counts once
        feed.close()
    again: Any = pool.open(CONNECTION, source(), tail=ONE)
    assert again._shared is not one._shared
    assert again._own._couch is not one._own._couch
    pool.close()


def test_a_feed_with_a_filter_in_the_server_or_a_mark_shares_no_connection():
    pool = FeedPool(clock=FakeClock())
    filtered = source(doc_ids=["a"], on_filtered="ignore", deletes="ignore")
    for options in (filtered, source(identity_token=True)):
        assert not isinstance(pool.open(CONNECTION, options), SubscribedFeed)


def test_a_lone_reader_holds_its_positions_and_opens_the_connection_for_a_second_one():
    clock = FakeClock(auto=False)
    shared = make_shared(clock)
    shared.register()
    assert shared.get_alone_seconds() > ALONE_SECONDS
    assert shared.offer("lone", Seq.of("1-x"), clock.monotonic()) is None
    clock.advance(10)
    shared.hold("lone", Seq.of("2-x"))
    shared.hold("another", Seq.of("9-other"))
    shared.register()
    assert shared.get_alone_seconds() == ALONE_SECONDS
    clock.advance(100)
    assert shared.offer("second", Seq.of("8-other"), clock.monotonic()) is None, "it has not held them"
    opened = shared.offer("lone", Seq.of("3-x"), clock.monotonic())
    assert opened == JoinPoint(clock.monotonic(), Seq.of("3-x"))
    shared._greenlet = object()
    shared.join(opened, None, bool)
    found = shared.offer("second", Seq.of("8-other"), clock.monotonic())
    assert found is not None
    assert found.seq == Seq.of("2-x"), "old enough for every copy to have it"


def test_positions_of_a_lone_reader_are_forgotten_with_it():
    clock = FakeClock(auto=False)
    shared = make_shared(clock)
    shared.register()
    shared.register()
    assert shared.offer("lone", Seq.of("1-x"), 0) is not None
    shared.release("another")
    assert list(shared._held)
    shared.release("lone")
    assert not list(shared._held)
    assert shared.offer("second", Seq.of("8-x"), 0).seq == Seq.of("8-x"), "now the second one is alone"
