"""Stopping, from any state: soon, with nothing left open, and without reading anything twice."""

from __future__ import annotations

import gc
import os
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from checkpoints import Seq
from checkpoints.checkpoint import NO_TAIL
from pillows.couch.http.response import ActivityMonitor
from pillows.errors import StoppedError
from pillows.feed import reader_task
from pillows.feed.batch_cutter import BATCH_BYTES
from pillows.feed.parsing.changes_parser import LineSplitter
from pillows.feed.reader_task import ReaderTask
from pillows.models import ChangeBatch
from pillows.observer import Observer
from pillows.retry.cancellable import LAST_SECONDS, StopAwareWaiter
from pillows.retry.retrier import Retrier
from tests.servers.scripted import HANG, LAST_CHUNK, Pause, Request, ScriptedServer, chunk, head, json_reply
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed
from tests.support.memory_transport import MemoryTransport
from tests.support.sizes import size
from tests.support.tails import plan
from tests.unit.pillows.feed.wire import MARK, PAGE_HEAD, couchdb, feed_of, page, reply, row, taking

#: How soon a stop has ended a feed: a second is promised, and a busy machine gets more.
SOON_SECONDS = size(ci=10, proof=1)
CHANGES = ("GET", "/db/_changes")
TAIL = [head(chunked=True) + chunk(b"\n"), HANG]


@pytest.fixture
def server(scripted_server) -> ScriptedServer:
    return couchdb(scripted_server())


@pytest.fixture(autouse=True, scope="module")
def only_objects_of_this_module_are_searched():
    """Counting greenlets walks all objects that the collector knows: half a second with those of others."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def open_sockets() -> int:
    fds = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(fd).startswith("socket:") for fd in fds if fd.is_symlink())


def greenlets() -> int:
    gc.collect()
    return sum(isinstance(o, gevent.Greenlet) and not o.ready() for o in gc.get_objects())


def until_nothing_is_left_open(sockets: int, running: int) -> None:
    deadline = time.monotonic() + 60
    while (open_sockets(), greenlets()) > (sockets, running) and time.monotonic() < deadline:
        gevent.sleep(0.01)  # the server's own ends close when they notice
    assert (open_sockets(), greenlets()) <= (sockets, running)


STATES: dict[str, Any] = {
    "the silence of the tail": ([reply(page([row(1)], "1-x")), TAIL], 2, 0.0),
    "waiting for the head of an answer": ([[HANG]], 1, 0.1),
    "waiting for the tail's head": ([reply(page([], "1-x")), [HANG]], 2, 0.1),
    "the silence of a page": ([[head(chunked=True) + chunk(PAGE_HEAD + row(1)), HANG]], 1, 0.1),
    "a back-off": ([json_reply({"error": "x"}, 503, Retry_After="100")], 1, 0.1),
    "a missing database": (
        [json_reply({"error": "not_found", "reason": "Database does not exist."}, 404)],
        1,
        0.1,
    ),
    "a pause between immediate ends": ([reply(page([], "1-x")), reply(b'{"last_seq":"1-x"}\n')], 2, 0.1),
}


@pytest.mark.parametrize("state", STATES)
def test_a_stop_ends_the_feed_within_a_second_and_leaves_nothing_open(server: ScriptedServer, state: str):
    plays, requests, more_seconds = STATES[state]
    server.on(*CHANGES, *plays)
    sockets, running = open_sockets(), greenlets()
    feed = feed_of(server.url)
    with taking(feed) as taken:
        taken.until(lambda: len(server.requests_of(*CHANGES)) == requests)
        gevent.sleep(more_seconds)
        began = time.monotonic()
        taken.stop.set()
        taken.ended()
        assert time.monotonic() - began < SOON_SECONDS
    assert taken.error is None
    until_nothing_is_left_open(sockets, running)


ASKING: dict[str, Any] = {
    "who the server is": (("GET", "/"), {}),
    "which database it is": (("GET", "/db"), {}),
    "whether the database is marked": (("GET", MARK), {"identity_token": True}),
    "where now is": (CHANGES, {"since": "now"}),
}


@pytest.mark.parametrize("asking", ASKING)
def test_a_stop_ends_a_pillow_whose_first_question_hangs(server: ScriptedServer, tmp_path, running, asking):
    """A stop once waited up to 15 s for the answer."""
    route, source = ASKING[asking]
    server.on(*route, [HANG])
    sockets, greenlets_before = open_sockets(), greenlets()
    made = plan(tmp_path, ListFeed(), MemoryTransport(), make_feed=lambda: feed_of(server.url, **source))
    run = running(made)
    run.until(lambda: server.requests_of(*route))
    began = time.monotonic()
    run.finish()
    assert time.monotonic() - began < SOON_SECONDS
    assert run.tail.state == "stopped"
    until_nothing_is_left_open(sockets, greenlets_before)


@pytest.mark.parametrize("set_before", [True, False])
def test_what_is_asked_while_a_stop_comes_may_still_be_answered_but_not_for_long(set_before):
    clock, stop, asked = FakeClock(auto=False), Event(), Event()
    ask = partial(Retrier(NO_TAIL, StopAwareWaiter(clock, stop), Observer()).retry_read, "source")

    def hang() -> None:
        asked.set()
        Event().wait()

    if set_before:
        stop.set()
    assert ask(lambda: "an answer") == "an answer"
    asking = gevent.spawn(ask, hang)
    assert asked.wait(60)
    stop.set()
    with gevent.Timeout(60):
        while not clock.waiting:
            gevent.sleep(0.001)
    assert not asking.ready()
    clock.advance(LAST_SECONDS)
    with pytest.raises(StoppedError):
        asking.get(timeout=60)


def test_what_is_asked_ends_with_whoever_asks():
    left = []
    ask = partial(Retrier(NO_TAIL, StopAwareWaiter(FakeClock(), Event()), Observer()).retry_read, "source")

    def hang() -> None:
        try:
            Event().wait()
        finally:
            left.append(True)

    asking = gevent.spawn(ask, hang)
    gevent.idle()
    asking.kill()
    assert left


def positions(first: int, last: int, limit: int) -> list[bytes]:
    """The rows of a page, with a position in every hundredth as CouchDB gives them."""
    return [
        row(n, f"{n}-tok" if (limit - n + first) % 100 == 0 else None, pad="x" * 300)
        for n in range(first, last + 1)
    ]


def test_a_stop_in_the_middle_of_a_page_hands_over_all_of_it_and_asks_for_nothing_more(server):
    """The page that was asked for was sent: what of it is not taken now would be sent again."""

    def changes(request: Request) -> bytes:
        begin = int(request.query["since"].partition("-")[0]) + 1
        limit = int(request.query["limit"])
        return reply(*[page(positions(begin, begin + limit - 1, limit), f"{begin + limit - 1}-tok", 999)])

    server.on(*CHANGES, changes)
    with taking(feed_of(server.url, page=500, queue="64KiB"), pause=0.001, stop_after=600) as taken:
        taken.ended()
    assert len(server.requests_of(*CHANGES)) == 2
    assert taken.ids == [f"doc-{n}" for n in range(1, 1001)]
    assert taken.seqs[-1] == "1000-tok"


def test_a_stop_while_the_consumer_is_busy_takes_the_rest_of_the_page(server):
    """The event tells those who wait for it a turn later: by then the consumer waits for the rest."""
    rows = positions(1, 200, 200)
    begin, rest = page(rows, "200-tok", 999).split(rows[150], 1)
    server.on(
        *CHANGES,
        [head(chunked=True) + chunk(begin), Pause(0.2), chunk(rows[150] + rest) + LAST_CHUNK],
    )
    stop = Event()
    feed = feed_of(server.url)
    with closing(feed):
        batches = (batch for batch in feed.batches(Seq.BEGINNING, None, stop) if batch.seq is not None)
        taken = [next(batches)]
        stop.set()
        taken += batches
    assert [change.id for batch in taken for change in batch.changes] == [f"doc-{n}" for n in range(1, 201)]


def test_a_stop_at_the_head_takes_what_has_been_sent(server):
    burst = b"".join(row(n) + b"\n" for n in range(2, 402))
    server.on(*CHANGES, reply(page([row(1)], "1-tok")), [head(chunked=True) + chunk(burst), HANG])
    with taking(feed_of(server.url), pause=0.05) as taken:
        taken.until(lambda: len(taken.ids) >= 2)
        taken.stop.set()
        taken.ended()
    assert taken.ids == [f"doc-{n}" for n in range(1, 402)]


def test_a_page_that_does_not_end_is_left_when_the_time_for_it_is_over(server):
    def trickle() -> list:
        rows = [chunk(row(n) + b",\r\n") for n in range(2, 500)]
        return [head(chunked=True) + chunk(PAGE_HEAD), *[s for r in rows for s in (r, Pause(0.02))], HANG]

    server.on(*CHANGES, trickle())
    with taking(feed_of(server.url, timeouts={"drain": 0.3})) as taken:
        taken.until(lambda: server.requests_of(*CHANGES))
        gevent.sleep(0.1)
        began = time.monotonic()
        taken.stop.set()
        taken.ended()
    assert time.monotonic() - began < SOON_SECONDS


def test_a_consumer_that_takes_nothing_costs_a_connection_but_no_row(server, monkeypatch):
    monkeypatch.setattr(reader_task, "STALLED_SECONDS", 0.1)
    warnings = []

    class Listener(Observer):
        def warning(self, pillow, *, event, details):
            warnings.append(event)

    def changes(request: Request) -> bytes:
        begin = int(request.query["since"].partition("-")[0]) + 1
        rows = positions(begin, max(begin - 1, 3000), 2000)[:2000]
        return reply(page(rows, f"{begin + len(rows) - 1}-tok")) if rows else reply(page([], "3000-tok"))

    server.on(*CHANGES, changes)
    feed = feed_of(server.url, queue="10KiB", observer=Listener(), clock=FakeClock())
    with taking(feed, pause=0.15) as taken:
        taken.until(lambda: "source.stalled" in warnings)
        taken._pause = 0
        taken.until(lambda: "3000-tok" in taken.seqs)
    assert sorted(set(taken.ids), key=taken.ids.index) == [f"doc-{n}" for n in range(1, 3001)]
    assert taken.error is None


def test_what_waits_between_the_server_and_the_consumer_is_bounded(server, monkeypatch):
    """The server is held back by TCP, instead of the rows piling up here."""
    read_bytes = []
    split = LineSplitter.feed

    def count(self: LineSplitter, block: bytes) -> list[bytes]:
        read_bytes.append(len(block))
        return split(self, block)

    monkeypatch.setattr(LineSplitter, "feed", count)

    def changes(request: Request):
        rows = b"".join(row(n, pad="x" * 10_000) + b",\r\n" for n in range(1, 100))
        return [head(chunked=True) + chunk(PAGE_HEAD), *[chunk(rows)] * 100, HANG]

    server.on(*CHANGES, changes)
    feed = feed_of(server.url, queue="1MiB")
    with taking(feed, pause=30) as taken:
        taken.until(lambda: taken.batches)
        gevent.sleep(0.3)
        taken.greenlet.kill()
    assert sum(read_bytes) < 6 * 2**20, "of 100 MB: the queue, a batch in hand, and one on its way"


def test_signs_of_life_come_while_nothing_else_does(server, monkeypatch):
    monkeypatch.setattr(reader_task, "TICK_SECONDS", 0.05)
    server.on(*CHANGES, reply(page([], "1-x")), TAIL)
    with taking(feed_of(server.url)) as taken:
        taken.until(lambda: taken.signs >= 5)
    assert taken.seqs == ["1-x"]


def test_a_reading_knows_how_long_it_was_held_up() -> None:
    clock = FakeClock(auto=False)
    cursor = SimpleNamespace(
        stop=Event(), following=False, held_up_seconds=0.0, loader=SimpleNamespace(close=lambda: None)
    )

    def make_cursor(put: Any) -> Any:
        cursor.put = put
        return cursor

    def read(cursor: Any) -> None:
        for number in range(3):
            cursor.put(ChangeBatch(changes=(), seq=Seq.of(number), size_bytes=BATCH_BYTES))

    task = ReaderTask(make_cursor, read, activity=ActivityMonitor(clock), clock=clock, max_bytes=BATCH_BYTES)
    with closing(task):
        batches = task.batches(0.0)
        next(batches)
        assert cursor.held_up_seconds == 0.0
        clock.advance(5.0)
        next(batches)
        next(batches)
        assert cursor.held_up_seconds == pytest.approx(5.0)
