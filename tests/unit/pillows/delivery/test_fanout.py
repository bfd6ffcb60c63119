"""One batch to several transports: all awaited, each retried alone."""

from __future__ import annotations

from itertools import accumulate

import gevent
import pytest
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Checkpoint, Seq
from pillows.delivery.fanout import FanOut, count_results, find_divergence, raise_most_severe
from pillows.errors import FatalError, RetryableError, StoppedError
from pillows.models import Batch, DocumentRows, TransportResult, write_version
from pillows.observer import Observer
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from tests.support.clock import FakeClock
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.waiting import let_others_run


def rows(*ids: str, version: int = 1) -> Batch:
    documents = [
        DocumentRows(id=id, rev="1-a", leaf_version=version, rows={"cases": ({"n": id},)}) for id in ids
    ]
    return Batch(documents=documents, epoch=1)


class Meeting(MemoryTransport):
    """Writes only once all of `together` are writing."""

    def __init__(self, name: str, together: list[str], everybody: int) -> None:
        super().__init__(name)
        self.together, self.everybody = together, everybody

    def write(self, batch):
        self.together.append(self.name)
        with gevent.Timeout(60):
            while len(self.together) < self.everybody:
                gevent.sleep(0.001)
        return super().write(batch)


@pytest.fixture
def make(clock):
    stop = Event()

    def build(*transports):
        return FanOut(transports, Retrier(KEY, StopAwareWaiter(clock, stop), Observer())), stop

    return build


def test_transports_write_at_the_same_time(make):
    together: list[str] = []
    transports = [Meeting(name, together, 3) for name in "abc"]

    make(*transports)[0].deliver(rows("x"))

    assert all(transport.live() for transport in transports)


def test_every_transports_answer_comes_back_in_configured_order(make):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    two.poison = {"x"}

    answers = make(one, two)[0].deliver(rows("x", "y"))

    assert list(answers) == ["one", "two"]
    assert (answers["one"].dead, answers["two"].dead) == ({}, {"x": "poison"})


def test_a_failure_is_raised_when_all_have_ended(make):
    bad, good = MemoryTransport("bad"), MemoryTransport("good")
    bad.fail = [FatalError("no more")]

    with pytest.raises(FatalError, match="no more"):
        make(bad, good)[0].deliver(rows("x"))

    assert good.live()


def test_two_failures_are_both_told(make):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    one.fail, two.fail = [FatalError("first")], [ValueError("a bug")]

    with pytest.raises(ValueError, match="a bug") as raised:
        make(one, two)[0].deliver(rows("x"))

    assert "first" in raised.value.__notes__[0]


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([StoppedError("stop"), FatalError("fatal"), ValueError("bug")], ValueError),
        ([ValueError("bug"), FatalError("fatal"), StoppedError("stop")], ValueError),
        ([StoppedError("stop"), FatalError("fatal")], FatalError),
        ([FatalError("fatal"), StoppedError("stop")], FatalError),
        ([StoppedError("stop")], StoppedError),
    ],
)
def test_a_bug_is_raised_before_a_fatal_error_and_that_before_a_stop(errors, raised):
    with pytest.raises(raised) as found:
        raise_most_severe(errors)
    assert len(getattr(found.value, "__notes__", [])) == len(errors) - 1


def test_one_transport_writes_one_batch_at_a_time_unless_more_are_permitted(make):
    steps: list[int] = []
    fanout = make(Delayed("a", 0.02, steps))[0]
    writing = [gevent.spawn(fanout.deliver, rows("x", version=n)) for n in (1, 2)]
    gevent.joinall(writing, raise_error=True, timeout=60)
    assert steps == [1, -1, 1, -1]


def test_no_write_begins_after_a_stop(make):
    away = MemoryTransport()
    away.fail = [RetryableError("away")] * 10
    fanout, stop = make(away)
    stop.set()

    with pytest.raises(StoppedError):
        fanout.deliver(rows("x"))

    assert len(away.batches) == 1


def test_every_refusal_of_every_try_is_kept(make):
    target = MemoryTransport()
    target.write(rows("a", "b"))
    target.busy = [{"b"}]

    answer = make(target)[0].deliver(rows("a", "b"))["memory"]

    assert set(answer.refused) == {"a", "b"}


class Slow(MemoryTransport):
    """Writes until it is let go."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.let_go = Event()
        self.ended = False

    def write(self, batch):
        try:
            assert self.let_go.wait(60)
            return super().write(batch)
        finally:
            self.ended = True


def test_the_answer_of_a_slow_transport_is_its_own(make):
    slow, fast = Slow("slow"), MemoryTransport("fast")
    slow.poison = {"x"}
    delivering = gevent.spawn(make(slow, fast)[0].deliver, rows("x", "y"))
    let_others_run()
    slow.let_go.set()

    results = delivering.get(timeout=60)

    assert ({"x"}, set()) == (set(results["slow"].dead), set(results["fast"].dead))


def test_killed_while_it_delivers_it_leaves_nobody_writing(make):
    """A writer that lived on would write during the next run, and into targets that were closed."""
    slow = Slow("slow")
    delivering = gevent.spawn(make(slow, MemoryTransport("fast"))[0].deliver, rows("x"))
    let_others_run()

    delivering.kill()

    assert slow.ended


class Both(MemoryTransport):
    """Finds a document dead and another busy in its first answer."""

    transactional = True

    def write(self, batch):
        self.busy = self.busy or [{"busy"}] * (not self.batches)
        return super().write(batch)


def test_a_part_that_is_tried_again_has_no_checkpoint(make):
    """The document that is dead already is in no dead letter yet when the rest is written."""
    target = Both("both")
    target.poison = {"dead"}
    whole = replace(rows("dead", "busy"), checkpoint=Checkpoint(seq=Seq.of("2-b")))

    make(target)[0].deliver(whole)

    assert [each.checkpoint is not None for each in target.batches] == [True, False]


@pytest.mark.parametrize(
    ("refused", "poison", "committed"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_only_a_batch_that_was_applied_whole_brings_its_checkpoint(make, refused, poison, committed):
    target = MemoryTransport("both", transactional=True, poison={"x"} if poison else ())
    if refused:
        target.write(rows("x"))
    whole = replace(rows("x", "y"), checkpoint=Checkpoint(seq=Seq.of("2-b")))

    result = make(target)[0].deliver(whole)["both"]

    assert (bool(result.refused), bool(result.dead)) == (refused, poison)
    assert result.committed == (whole.checkpoint if committed else None)


class Delayed(MemoryTransport):
    """Takes its time; notes in `steps` when it begins (+1) and ends (-1)."""

    def __init__(self, name: str, seconds: float, steps: list[int] | None = None) -> None:
        super().__init__(name)
        self.seconds = seconds
        self.steps = [] if steps is None else steps

    def write(self, batch):
        self.steps.append(1)
        gevent.sleep(self.seconds)
        self.steps.append(-1)
        return super().write(batch)


def test_a_batch_takes_as_long_as_the_slowest_transport_and_not_the_sum(make):
    """One of three is slower: all write at once, and the next batch begins when all have ended."""
    steps: list[int] = []
    fanout = make(Delayed("a", 0.02, steps), Delayed("b", 0.1, steps), Delayed("c", 0.02, steps))[0]
    for n in range(2):
        fanout.deliver(rows("x", version=n + 1))
    assert steps == [1, 1, 1, -1, -1, -1] * 2


def test_answers_belong_to_who_gave_them_whoever_ends_first(make):
    slow, quick = Delayed("slow", 0.03), MemoryTransport("quick")
    quick.poison = {"x"}
    answers = make(slow, quick)[0].deliver(rows("x"))
    assert {name: dict(answer.dead) for name, answer in answers.items()} == {
        "slow": {},
        "quick": {"x": "poison"},
    }


def test_transports_that_disagree_on_a_document_are_told():
    results = {
        "a": TransportResult(refused={"replay": 5}, dead={"x": "no", "both": "no"}),
        "b": TransportResult(refused={}, dead={"both": "no"}),
    }
    assert find_divergence(results) == {"x": ["a"]}
    assert find_divergence({"a": results["a"]}) == {}


def test_a_write_that_takes_too_long_is_abandoned_and_tried_again(clock):
    class Hanging(MemoryTransport):
        hangs = 2

        def write(self, batch):
            if self.hangs:
                self.hangs -= 1
                gevent.sleep(60)
            return super().write(batch)

    hanging, good = Hanging("hanging"), MemoryTransport("good")
    seen = Recorder()
    retrier = Retrier(KEY, StopAwareWaiter(clock, Event()), seen)
    FanOut([hanging, good], retrier, timeouts_seconds={"hanging": 0.02}).deliver(rows("x"))
    assert (len(hanging.batches), len(good.batches)) == (1, 1)
    assert [facts["where"] for facts in seen.of("retry")] == ["hanging"] * 2
    assert "not known" in seen.of("retry")[0]["error"]


def test_no_write_begins_after_the_deliverer_was_killed(clock):
    transports = [Delayed(name, 0.05) for name in "abcd"]
    retrier = Retrier(KEY, StopAwareWaiter(clock, Event()), Observer())
    delivering = gevent.spawn(FanOut(transports, retrier, max_parallel=1).deliver, rows("x"))
    gevent.sleep(0.07)
    delivering.kill()
    written = [len(transport.batches) for transport in transports]
    gevent.sleep(0.2)
    assert [len(transport.batches) for transport in transports] == written


def test_every_transport_sees_the_same_order(make):
    transports = [Delayed("a", 0.003), MemoryTransport("b")]
    fanout = make(*transports)[0]
    for version in range(1, 20):
        fanout.deliver(rows("x", version=version))
    seen = [[batch.documents[0].leaf_version for batch in each.batches] for each in transports]
    assert seen[0] == seen[1] == list(range(1, 20))


def test_so_many_write_at_once(clock):
    steps: list[int] = []
    transports = [Delayed(str(n), 0.02, steps) for n in range(5)]
    retrier = Retrier(KEY, StopAwareWaiter(clock, Event()), Observer())
    FanOut(transports, retrier, max_parallel=2).deliver(rows("x"))
    assert max(accumulate(steps)) == 2


@pytest.mark.parametrize(
    ("busy", "attempts"),
    [([{"a", "b"}, {"a", "b"}], [1, 2]), ([{"a", "b"}, {"a"}], [1, 1]), ([{"a"}, {"a"}], [1, 2])],
)
def test_the_wait_grows_unless_a_part_was_written(clock, busy, attempts):
    target = MemoryTransport()
    target.busy = busy
    seen = Recorder()
    FanOut([target], Retrier(KEY, StopAwareWaiter(clock, Event()), seen)).deliver(rows("a", "b"))
    assert [each["attempt"] for each in seen.of("retry")] == attempts


def test_a_write_is_reported_with_its_duration_and_its_documents():
    clock = FakeClock(auto=False)
    target = MemoryTransport(before_write=lambda _batch: clock.advance(3))
    seen = Recorder()
    FanOut([target], Retrier(KEY, StopAwareWaiter(clock, Event()), seen)).deliver(rows("a", "b"))
    (told,) = seen.of("write")
    assert (told["transport"], told["seconds"]) == ("memory", 3)
    assert told["documents"] == {"applied": 2, "equal": 0, "stale": 0, "dead": 0}


def test_a_time_limit_of_the_caller_is_not_taken_for_that_of_the_write(clock):
    retrier = Retrier(KEY, StopAwareWaiter(clock, Event()), Observer())
    fanout = FanOut([Delayed("slow", 60)], retrier, timeouts_seconds={"slow": 30})
    limit = gevent.Timeout(0.01)
    with pytest.raises(gevent.Timeout) as raised, limit:
        fanout.deliver(rows("x"))
    assert raised.value is limit


def test_documents_are_counted_by_their_result():
    batch = rows("applied", "equal", "stale", "dead", version=3)
    result = TransportResult(
        refused={"equal": write_version(1, 3), "stale": write_version(1, 4)}, dead={"dead": "poison"}
    )
    assert count_results(batch, result) == {"applied": 1, "equal": 1, "stale": 1, "dead": 1}


def test_what_is_in_flight_is_told_for_each_transport_and_ends_with_a_failure_too(clock):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    two.fail = [FatalError("gone", remedy="none")]
    seen = Recorder()
    with pytest.raises(FatalError):
        FanOut([one, two], Retrier(KEY, StopAwareWaiter(clock, Event()), seen)).deliver(rows("x"))
    told = [(each["transport"], each["batches"]) for each in seen.of("in_flight")]
    assert sorted(told) == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    assert [each["transport"] for each in seen.of("write")] == ["one"]
