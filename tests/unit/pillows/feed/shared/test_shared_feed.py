"""Pillows on one database share one connection, and miss nothing on the way there."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from checkpoints import Seq
from pillows.couch.options import CouchConnection
from pillows.feed.options import SourceOptions
from pillows.feed.shared.pool import FeedPool
from pillows.feed.shared.shared_feed import GATHER_SECONDS, SharedFeed
from pillows.feed.shared.subscribed_feed import SubscribedFeed
from pillows.feed.shared.subscriber import JoinPoint, Subscriber
from pillows.models import ChangeBatch
from tests.servers.scripted import HANG, Request, ScriptedServer, chunk, head
from tests.support.clock import FakeClock, FastClock
from tests.support.sizes import size
from tests.support.waiting import wait_until
from tests.unit.pillows.feed.wire import Taking, closing, couchdb, info, page, reply, row

LAG_SECONDS = 30.0
MEMBERS = size(ci=8, proof=20)


class TwoCopies:
    """A database with two copies, one of which lags; each request is answered by one of them.

    Attributes:
        written: when each change was written; change n is document `doc-n`.
        open: how many `_changes` requests wait for their answer now.
        starts: the positions that requests began at.
    """

    def __init__(self, clock: FastClock, written: int) -> None:
        self.clock = clock
        self.written = [clock.monotonic() - 1000] * written
        self.open = self.most_open = 0
        self.starts: list[str] = []
        self._turn = 0

    def serve(self, server: ScriptedServer) -> None:
        couchdb(server).on("GET", "/db/_changes", self.changes)

    def write(self) -> None:
        self.written.append(self.clock.monotonic())

    def changes(self, request: Request) -> bytes:
        self._turn += 1
        lag_seconds = LAG_SECONDS if self._turn % 2 else 0.0
        self.starts.append(request.query["since"])
        since = int(request.query["since"].partition("-")[0])
        rows = self._rows(since, lag_seconds)
        if request.query.get("limit") == "0":
            return reply(page([], request.query["since"], 0))
        if request.query["feed"] == "normal":
            return reply(page(rows, self._token(since, rows)))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if not rows:
            self.clock.wait(Event(), 25.0)  # what the real one would say: nothing, then its position
            rows = self._rows(since, lag_seconds)
        self.open -= 1
        return reply(b"".join(line + b"\n" for line in rows) + closing(self._token(since, rows)))

    def _rows(self, since: int, lag_seconds: float) -> list[bytes]:
        visible = sum(at <= self.clock.monotonic() - lag_seconds for at in self.written)
        return [row(n, self._stamp(n)) for n in range(since + 1, visible + 1)]

    def _token(self, since: int, rows: list[bytes]) -> str:
        return self._stamp(since + len(rows))

    def _stamp(self, n: int) -> str:
        self._turn += 2  # never the same token twice
        return f"{n}-{self._turn}"


@pytest.fixture
def clock():
    return FastClock()


@pytest.fixture
def groups(clock):
    made = FeedPool(clock=clock)
    yield made
    made.close()


def start(groups: FeedPool, url: str, since: int, **options) -> tuple[Any, Any]:
    source = SourceOptions(connection="c", database="db", documents="include_docs", **options)
    feed: Any = groups.open(CouchConnection(url=url), source)
    return feed, Taking(feed, Seq.of(f"{since}-start{since}"), None, 0)


UNUSED: Any = None


def is_shared(feed: SubscribedFeed) -> bool:
    return feed._subscriber is not None


@pytest.mark.parametrize("busy", [False, True])
def test_readers_with_different_positions_come_down_to_one_connection(scripted_server, busy):
    come_together(scripted_server(), FastClock(), busy=busy)


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_in_real_time_they_come_down_to_one_connection_within_three_minutes(scripted_server):
    """No clock runs faster than the wall's here: as long as an operator would wait."""
    took_seconds = come_together(scripted_server(), FastClock(speed=1.0), busy=True)
    print(f"\n{MEMBERS} readers of {MEMBERS} positions: one connection after {took_seconds:.0f} s")
    assert took_seconds <= 180


def come_together(server: ScriptedServer, clock: FastClock, *, busy: bool) -> float:
    """Readers of as many positions, one copy of the database lagging; the seconds until they share.

    Holds that there is one connection from then on, and that nothing was missed on the way.
    """
    couch = TwoCopies(clock, written=100)
    couch.serve(server)
    groups = FeedPool(clock=clock)
    readers = [start(groups, server.url, since) for since in range(MEMBERS)]
    wait_until(lambda: all(taken.batches for _, taken in readers))
    began, writing = clock.monotonic(), Event()

    def write() -> None:
        while not writing.is_set():
            couch.write()
            clock.wait(writing, 3.0)

    def pass_by(seconds: float) -> None:
        clock.wait(Event(), seconds)

    writer = gevent.spawn(write) if busy else None
    wait_until(
        lambda: all(is_shared(feed) for feed, _ in readers) and not readers[0][0]._shared._joining,
        seconds=300,
    )
    took_seconds = clock.monotonic() - began
    pass_by(40)  # the fake does not notice who has hung up
    couch.most_open = 0
    pass_by(100)
    assert couch.most_open <= 1
    writing.set()
    gevent.joinall([writer] if writer else [])
    couch.write()
    expected = {f"doc-{n}" for n in range(MEMBERS + 1, len(couch.written) + 1)}
    wait_until(lambda: all(expected <= set(taken.ids) for _, taken in readers), seconds=120)
    for _, taken in readers:
        taken.stop.set()
    for _, taken in readers:
        taken.ended(60)
        assert taken.error is None
    groups.close()
    return took_seconds


def offered(overlap_seconds: float) -> list[str | None]:
    """A group that holds another position every 10 s; what it offers after a minute, for each age."""
    clock = FakeClock(auto=False)
    group: Any = SharedFeed(UNUSED, clock=clock, overlap_seconds=overlap_seconds, max_lag_bytes=1)
    group._subscribers = [Subscriber(JoinPoint(0, Seq.BEGINNING), None, bool, 1)]
    for n in range(8):
        group._remember(Seq.of(f"{n}-x"))
        clock.advance(10)
    now = clock.monotonic()
    offers = [group.offer(None, Seq.of("mine"), now - age) for age in (0, 10, 20, 1000)]
    return [held and str(held.seq) for held in offers]


def test_a_position_is_offered_once_every_copy_has_what_it_covers():
    """Whoever asked 10 s ago may have been answered by a copy that lags behind what came since."""
    assert offered(60) == ["2-x", "1-x", "0-x", None]
    assert offered(0) == ["7-x", "7-x", "6-x", None]


def test_who_holds_a_position_of_the_group_joins_at_it_at_once():
    group: Any = SharedFeed(UNUSED, clock=FakeClock(auto=False), overlap_seconds=60, max_lag_bytes=1)
    assert group.offer("one", Seq.of("mine"), 0) is None, "a lone reader needs no second connection"
    group.register()
    group.register()
    assert group.offer("one", Seq.of("mine"), 0).seq == Seq.of("mine"), "the first opens the connection"
    assert group.offer("other", Seq.of("mine"), 0) is None, "another may not"
    group._subscribers = [Subscriber(JoinPoint(0, Seq.BEGINNING), None, bool, 1)]
    group._remember(Seq.of("ours"))
    assert group.offer(None, Seq.of("theirs"), 0) is None
    assert group.offer(None, Seq.of("ours"), 0).seq == Seq.of("ours")


def test_a_reader_that_is_too_far_behind_leaves_with_what_it_has():
    member = Subscriber(JoinPoint(0, Seq.BEGINNING), None, bool, max_bytes=100)
    for n in range(5):
        member.put(ChangeBatch(changes=(), seq=Seq.of(n), size_bytes=40))
    assert member.left
    assert [batch.seq for batch in member.batches(Event(), bool)] == [Seq.of(0), Seq.of(1)]


def test_a_slow_reader_does_not_hold_up_the_others_and_misses_nothing(scripted_server, clock, groups):
    server = scripted_server()
    couch = TwoCopies(clock, written=10)
    couch.serve(server)
    readers = [start(groups, server.url, 0, join_overlap="0s", queue="1KiB") for _ in range(3)]
    wait_until(lambda: all(is_shared(feed) for feed, _ in readers))
    _, slow = readers[0]
    slow._pause = 0.3
    for _ in range(30):
        couch.write()
        gevent.sleep(0.01)
    wait_until(lambda: all("doc-40" in taken.ids for _, taken in readers[1:]))
    slow._pause = 0
    wait_until(lambda: {f"doc-{n}" for n in range(1, 41)} <= set(slow.ids))
    for _, taken in readers:
        taken.stop.set()
        taken.ended()


def test_the_last_reader_takes_what_has_been_sent_when_it_stops(scripted_server):
    groups = FeedPool()
    server = couchdb(scripted_server())
    burst = b"".join(row(n) + b"\n" for n in range(2, 402))
    # Sent with one call, so that all of it is on the line as soon as its first row is here.
    tails = iter([[HANG], [head(chunked=True) + chunk(burst[:9000]) + chunk(burst[9000:]), HANG]])

    def changes(request: Request):
        if request.query["feed"] == "continuous":
            return next(tails)
        return reply(page([row(1)] if request.query["since"] == "0-start0" else [], "1-tok"))

    server.on("GET", "/db/_changes", changes)
    feed, taken = start(groups, server.url, 0, mode="continuous")
    feed._shared.register()  # another reader, which has not come to the head yet
    wait_until(lambda: "doc-2" in taken.ids)
    assert is_shared(feed)
    taken.stop.set()
    taken.ended()
    feed.close()
    assert taken.seqs[-1] == "401-tok"
    assert taken.error is None


def test_a_recreated_database_is_told_to_every_reader(scripted_server, clock, groups):
    server = scripted_server()
    couch = TwoCopies(clock, written=10)
    couch.serve(server)
    readers = [start(groups, server.url, 0, join_overlap="0s") for _ in range(3)]
    wait_until(lambda: all(is_shared(feed) for feed, _ in readers))
    server.on("GET", "/db", info("1800000000"))
    for _, taken in readers:
        taken.ended()
        assert "created at 1800000000" in str(taken.error)


def test_readers_that_are_read_differently_do_not_share(scripted_server, clock, groups):
    server = scripted_server()
    couch = TwoCopies(clock, written=10)
    couch.serve(server)
    one = start(groups, server.url, 0, join_overlap="0s")
    other = start(groups, server.url, 0, join_overlap="0s", skip_design=False)
    wait_until(lambda: one[1].batches and other[1].batches)
    assert one[0]._shared is not other[0]._shared
    for _, taken in (one, other):
        taken.stop.set()
        taken.ended()


def test_a_transform_that_alters_its_document_alters_it_for_itself_alone(scripted_server, clock, groups):
    server = scripted_server()
    couch = TwoCopies(clock, written=1)
    couch.serve(server)
    readers = [start(groups, server.url, 0, join_overlap="0s") for _ in range(2)]
    wait_until(lambda: all(is_shared(feed) for feed, _ in readers))
    couch.write()
    wait_until(lambda: all("doc-2" in taken.ids for _, taken in readers))
    changes = [next(c for b in t.batches for c in b.changes if c.id == "doc-2") for _, t in readers]
    changes[0].doc["n"] = "altered"
    assert changes[1].doc["n"] == 2
    for _, taken in readers:
        taken.stop.set()
        taken.ended()


class Ending:
    """A feed of one answer, whose end takes a moment, as the end of a connection does."""

    identity = last_byte_at = trouble = None

    def __init__(self, answer: ChangeBatch | None = None) -> None:
        self.answer = answer
        self.since: list[Seq] = []

    def batches(self, since: Seq, identity: object, stop: Event):
        self.since.append(since)
        try:
            if self.answer is not None:
                yield self.answer
            while not stop.wait(0.01):
                yield ChangeBatch(changes=(), seq=None)
        finally:
            gevent.sleep(0.01)

    def close(self) -> None:
        pass


def ending(answer: ChangeBatch | None = None) -> Any:
    return Ending(answer)


def test_nobody_founds_a_group_while_another_does():
    """The second one's position may be behind the first one's: it would miss what lies between."""
    clock = FakeClock(auto=False)
    shared: Any = Ending(ChangeBatch(changes=(), seq=Seq.of("9-head"), asked_at=clock.monotonic()))
    group = SharedFeed(lambda _: shared, clock=clock, overlap_seconds=60.0, max_lag_bytes=10**6)
    stop = Event()
    readers = []
    for token in ("9-later", "5-earlier"):
        answer = ChangeBatch(changes=(), seq=Seq.of(token), asked_at=clock.monotonic())
        feed = SubscribedFeed(ending(answer), group, lambda _: True)
        readers.append((feed, gevent.spawn(list, feed.batches(Seq.BEGINNING, None, stop))))
    wait_until(lambda: is_shared(readers[0][0]) and shared.since)
    gevent.sleep(0.1)  # whoever would found another one has had the time for it

    try:
        assert [is_shared(feed) for feed, _ in readers] == [True, False]
        assert shared.since == [Seq.of("9-later")]
    finally:
        stop.set()
        for _, reader in readers:
            reader.get(timeout=60)


def test_a_reading_is_closed_with_the_feed_that_began_it():
    """It has a connection to end; the garbage collector might find it only at the exit."""
    group = SharedFeed(
        lambda _: ending(), clock=FakeClock(auto=False), overlap_seconds=60.0, max_lag_bytes=10**6
    )
    feed: Any = SubscribedFeed(ending(), group, lambda _: True)
    begin, begun = feed._read_alone, []

    def alone(*arguments):
        begun.append(begin(*arguments))
        return begun[-1]

    feed._read_alone = alone
    batches = feed.batches(Seq.BEGINNING, None, Event())
    next(batches)
    batches.close()
    assert [reading.gi_frame for reading in begun] == [None]


class Shared(Ending):
    """A feed that gives what a test puts in."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: list[ChangeBatch] = []

    def batches(self, since: Seq, identity: object, stop: Event):
        self.since.append(since)
        while not stop.wait(0.001):
            while self.ready:
                yield self.ready.pop(0)


def test_who_was_taken_in_still_gets_everything_when_the_next_one_comes():
    """The shared feed reads from the oldest position that a reader needs until it is at the head."""
    clock = FakeClock(auto=False)
    shared: Any = Shared()
    group = SharedFeed(lambda _: shared, clock=clock, overlap_seconds=60.0, max_lag_bytes=10**6)

    def held(token: str) -> JoinPoint:
        return JoinPoint(clock.monotonic(), Seq.of(token))

    def join(at: JoinPoint) -> None:
        begun = len(shared.since)
        group.join(at, None, lambda _: True)
        wait_until(lambda: clock.waiting or len(shared.since) > begun)  # only those who come later gather
        clock.advance(GATHER_SECONDS)
        wait_until(lambda: len(shared.since) > begun)

    oldest = held("1-founder")
    join(oldest)
    clock.advance(100)
    newer = held("50-newer")
    join(oldest)
    join(newer)
    assert shared.since == [oldest.seq] * 3

    shared.ready.append(ChangeBatch(changes=(), seq=Seq.of("60-head"), asked_at=clock.monotonic()))
    wait_until(lambda: not shared.ready)
    join(newer)
    assert shared.since[3:] == [newer.seq]
    for member in [*group._subscribers]:
        group.leave(member)
