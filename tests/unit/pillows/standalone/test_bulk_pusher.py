"""BulkPusher on its own, with a function as its target."""

from __future__ import annotations

import gc
import logging
import threading
import tracemalloc
from collections import defaultdict

import gevent
import msgspec
import pytest
from gevent.event import Event

from pillows import BulkOptions, BulkPusher
from pillows.errors import RetryableError
from pillows.standalone.bulk_pusher import BulkOutcome, PusherClosed
from tests.support.clock import FakeClock
from tests.support.recorder import Recorder
from tests.support.sizes import size
from tests.support.waiting import wait_until


class Target:
    """Takes bulks; holds each until it is let go."""

    def __init__(self):
        self.bulks = []
        self.go = Event()
        self.go.set()
        self.fail = []
        self.running = 0
        self.most = 0

    def __call__(self, documents):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.go.wait(60)
            gevent.sleep(0)
            if self.fail:
                raise self.fail.pop(0)
            self.bulks.append([msgspec.json.decode(each.body) for each in documents])
        finally:
            self.running -= 1

    @property
    def ids(self):
        return [[doc["_id"] for doc in bulk] for bulk in self.bulks]


@pytest.fixture
def target():
    return Target()


@pytest.fixture
def pusher(target):
    opened = []

    def make(write=target, *, clock=None, observer=None, name="bulk", **settings):
        opened.append(BulkPusher(write, BulkOptions(**settings), clock=clock, observer=observer, name=name))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def docs(count, start=0):
    return [{"_id": f"d{n:04}", "n": n} for n in range(start, start + count)]


def test_bulks_are_full_and_the_last_one_is_sent_by_finish(target, pusher):
    pushing = pusher(threshold=10)
    for doc in docs(25):
        pushing.push(doc)
    counts = pushing.finish()
    assert [len(bulk) for bulk in target.bulks] == [10, 10, 5]
    assert (counts.ok, counts.conflict, counts.failed) == (25, 0, 0)


def test_one_writer_keeps_the_order_of_pushes(target, pusher):
    with pusher(threshold=10) as pushing:
        for doc in docs(60):
            pushing.push(doc)
    assert [(bulk[0]["n"], bulk[-1]["n"]) for bulk in target.bulks] == [(n, n + 9) for n in range(0, 60, 10)]


def test_lanes_keep_the_order_of_each_id(target, pusher):
    with pusher(threshold=7, max_in_flight=4) as pushing:
        for n in range(400):
            pushing.push({"_id": f"d{n % 13}", "n": n})
    by_id = defaultdict(list)
    for bulk in target.bulks:
        for doc in bulk:
            by_id[doc["_id"]].append(doc["n"])
    assert sum(map(len, by_id.values())) == 400
    assert all(seen == sorted(seen) for seen in by_id.values())
    assert 1 < target.most <= 4


def test_a_bulk_that_is_not_full_is_sent_after_a_while(target, pusher):
    clock = FakeClock(auto=False)
    pushing = pusher(threshold=10, max_age_seconds=1.0, clock=clock)
    for doc in docs(9):
        pushing.push(doc)
    clock.advance(0.9)
    assert target.bulks == []
    clock.advance(0.2)
    wait_until(lambda: [len(bulk) for bulk in target.bulks] == [9])


def test_a_full_bulk_starts_without_a_further_push(target, pusher):
    pushing = pusher(threshold=10, max_age_seconds=1000)
    for doc in docs(20):
        pushing.push(doc)
    wait_until(lambda: [len(bulk) for bulk in target.bulks] == [10, 10])


def test_a_bulk_is_bounded_in_bytes_and_a_larger_document_goes_alone(target, pusher):
    with pusher(threshold=100, max_bytes=300) as pushing:
        for n, text in enumerate(("x" * 100, "x" * 100, "x" * 5000, "x", "x")):
            pushing.push({"_id": str(n), "text": text})
    assert target.ids == [["0", "1"], ["2"], ["3", "4"]]


def test_push_waits_while_no_more_bulks_may_wait_and_others_go_on(target, pusher):
    target.go.clear()
    pushing = pusher(threshold=10, jobsbuffersizemax=3)
    pushed = []

    def produce():
        for doc in docs(200):
            pushing.push(doc)
            pushed.append(doc)

    producer = gevent.spawn(produce)
    for _ in range(20):
        gevent.sleep(0.001)
    # One in flight, three that wait, one that grows.
    assert len(pushed) == 50
    assert pushing.waiting in (50, 51)
    target.go.set()
    producer.get(timeout=60)
    assert pushing.finish().ok == 200


def test_memory_is_bounded_however_much_is_pushed(pusher):
    seen = [0]

    def write(documents):
        seen[0] += len(documents)
        gevent.sleep(0)

    count = size(ci=20_000, proof=1_000_000)
    text = "x" * 1000
    tracemalloc.start()
    try:
        with pusher(write, threshold=100, jobsbuffersizemax=2) as pushing:
            for n in range(count):
                pushing.push({"_id": str(n), "text": text})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == [count]
    assert peak < 6 * 100 * 1500


@pytest.mark.parametrize("after", [None, 30.0])
def test_what_may_succeed_later_is_tried_again_and_a_wish_to_wait_is_honoured(target, pusher, after):
    clock, seen = FakeClock(), Recorder()
    target.fail = [RetryableError("busy", retry_after_seconds=after)] * 3
    with pusher(threshold=2, clock=clock, observer=seen) as pushing:
        for doc in docs(2):
            pushing.push(doc)
    assert target.ids == [["d0000", "d0001"]]
    assert [facts["attempt"] for facts in seen.of("retry")] == [1, 2, 3]
    if after:
        assert min(facts["delay_seconds"] for facts in seen.of("retry")) >= after


def test_after_the_last_try_the_error_is_the_callers_and_nothing_counts_as_written(target, pusher):
    target.fail = [RetryableError("away")] * 100
    pushing = pusher(threshold=2, max_tries=3, clock=FakeClock())
    pushing.push({"_id": "a"})
    with pytest.raises(RetryableError, match="away"):
        pushing.flush()
    with pytest.raises(RetryableError, match="away"):
        pushing.push({"_id": "b"})
    with pytest.raises(RetryableError, match="away"):
        pushing.finish()
    assert pushing.counts.ok == 0


def test_conflicts_and_failures_are_listed_by_id_and_the_others_are_written(pusher):
    def write(documents):
        return BulkOutcome(conflicts={"d0003": "conflict"}, failures={"d0005": "forbidden: no"})

    with pusher(write, threshold=10) as pushing:
        for doc in docs(10):
            pushing.push(doc)
    assert (pushing.counts.ok, pushing.counts.conflict, pushing.counts.failed) == (8, 1, 1)
    assert pushing.counts.conflicts == {"d0003": "conflict"}
    assert pushing.counts.failures == {"d0005": "forbidden: no"}


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (BulkOutcome(conflicts={"a": "conflict"}), (1, 3, 0)),
        (BulkOutcome(conflicts={"a": "conflict"}, conflict=2), (2, 2, 0)),
        (BulkOutcome(failures={"": "forbidden"}), (3, 0, 1)),
        (BulkOutcome(failures={"made": "forbidden"}), (3, 0, 1)),
    ],
)
def test_a_document_counts_as_written_only_where_that_is_sure(pusher, outcome, counts):
    """Of one id there may be several in a bulk: a target that does not count names them all."""
    with pusher(lambda documents: outcome, threshold=10) as pushing:
        for document in ({"_id": "a"}, {"_id": "a"}, {"_id": "a"}, {"n": 1}):
            pushing.push(document)
    assert (pushing.counts.ok, pushing.counts.conflict, pushing.counts.failed) == counts


def test_a_document_is_written_as_it_was_when_it_was_pushed(target, pusher):
    doc = {"_id": "a", "n": 1}
    with pusher(threshold=10) as pushing:
        for n in range(5):
            doc |= {"_id": str(n), "n": n}
            pushing.push(doc)
        doc.clear()
    assert target.bulks == [[{"_id": str(n), "n": n} for n in range(5)]]


@pytest.mark.parametrize("bad", [{"_id": "x", "v": object()}, {"_id": 5}, ["no", "document"], b"{", None])
def test_what_is_no_document_is_refused_when_it_is_pushed_and_harms_no_other(target, pusher, bad):
    with pusher(threshold=10) as pushing:
        pushing.push({"_id": "a"})
        with pytest.raises((TypeError, ValueError)):
            pushing.push(bad)
        pushing.push(b'{"_id":"b"}')
    assert target.ids == [["a", "b"]]
    assert pushing.counts.ok == 2


def test_flush_returns_after_all_acknowledgements_and_finish_may_be_called_twice(target, pusher):
    pushing = pusher(threshold=10, max_age_seconds=1000, max_in_flight=2)
    for doc in docs(13):
        pushing.push(doc)
    assert pushing.flush().ok == 13
    assert pushing.waiting == 0
    pushing.push({"_id": "more"})
    assert pushing.finish().ok == 14
    assert pushing.finish().ok == 14
    with pytest.raises(PusherClosed):
        pushing.push({"_id": "late"})


def test_finish_on_nothing_is_finished(target, pusher):
    assert pusher().finish().ok == 0
    assert target.bulks == []


def test_an_error_in_the_block_ends_at_once(target, pusher):
    target.go.clear()

    def produce():
        with pusher(threshold=1) as pushing:
            pushing.push({"_id": "a"})
            raise KeyError("mine")

    with pytest.raises(KeyError):
        produce()
    assert target.bulks == []


def test_nothing_is_printed_and_each_bulk_is_told_with_its_figures(target, pusher, capfd, caplog):
    seen = Recorder()
    with caplog.at_level(logging.DEBUG), pusher(threshold=2, observer=seen, name="people") as pushing:
        for doc in docs(4):
            pushing.push(doc)
    told = [(facts["documents"], facts["refused"], facts["dead"]) for facts in seen.of("batch")]
    assert told == [(2, 0, 0), (2, 0, 0)]
    assert capfd.readouterr() == ("", "")
    assert not hasattr(pushing, "destroyDatabase")


def test_pushers_do_not_influence_each_other_and_leave_nothing_behind(pusher):
    one, two = Target(), Target()

    def greenlets():
        gc.collect()
        return {each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead}

    threads, before = threading.active_count(), greenlets()
    with pusher(one, threshold=2) as first, pusher(two, threshold=5, max_in_flight=3) as second:
        for doc in docs(10):
            first.push(doc)
            second.push({"_id": "same", "n": doc["n"]})
    assert {len(bulk) for bulk in one.bulks} == {2}
    assert {len(bulk) for bulk in two.bulks} == {5}
    gevent.sleep(0)
    assert threading.active_count() <= threads, "one of an earlier test may have ended meanwhile"
    assert greenlets() <= before, "those of earlier tests may end meanwhile"


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"max_in_flight": 0}, {"jobsbuffersizemax": -1}])
def test_settings_that_cannot_work_are_refused(target, settings):
    with pytest.raises(ValueError, match="at least 1"):
        BulkPusher(target, BulkOptions(**settings))
