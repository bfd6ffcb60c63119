"""One batch to several transports: all awaited, each retried alone."""

from __future__ import annotations

from dataclasses import replace

import gevent
import pytest
from gevent.event import Event

from checkpoints import Checkpoint, Seq
from pillows.errors import FatalError, RetryableError, StoppedError
from pillows.fanout import FanOut
from pillows.models import Batch, DocumentRows
from pillows.observer import Observer
from pillows.tries import Retrier
from pillows.waiting import Waiter
from tests.unit.pipeline.parts import MemoryTransport


def rows(*ids: str, version: int = 1) -> Batch:
    documents = [DocumentRows(id=id, rev="1-a", version=version, rows={"cases": ({"n": id},)}) for id in ids]
    return Batch(documents=documents, epoch=1)


class Meeting(MemoryTransport):
    """Writes only once all of `together` are writing."""

    def __init__(self, name: str, together: list[str], everybody: int) -> None:
        super().__init__(name)
        self.together, self.everybody = together, everybody

    def write(self, batch):
        self.together.append(self.name)
        with gevent.Timeout(2):
            while len(self.together) < self.everybody:
                gevent.sleep(0.001)
        return super().write(batch)


@pytest.fixture
def make(clock):
    stop = Event()

    def build(*transports):
        return FanOut(transports, Retrier("t", Waiter(clock, stop), Observer())), stop

    return build


def test_w1_transports_write_at_the_same_time(make):
    together: list[str] = []
    transports = [Meeting(name, together, 3) for name in "abc"]

    make(*transports)[0].deliver(rows("x"))

    assert all(transport.live() for transport in transports)


def test_w2_every_transports_answer_comes_back_in_configured_order(make):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    two.poison = {"x"}

    answers = make(one, two)[0].deliver(rows("x", "y"))

    assert list(answers) == ["one", "two"]
    assert (answers["one"].dead, answers["two"].dead) == ({}, {"x": "poison"})


def test_w3_a_failure_is_raised_when_all_have_ended(make):
    bad, good = MemoryTransport("bad"), MemoryTransport("good")
    bad.fail = [FatalError("no more")]

    with pytest.raises(FatalError, match="no more"):
        make(bad, good)[0].deliver(rows("x"))

    assert good.live()


def test_w6_two_failures_are_both_told(make):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    one.fail, two.fail = [FatalError("first")], [ValueError("a bug")]

    with pytest.raises(ValueError, match="a bug") as raised:
        make(one, two)[0].deliver(rows("x"))

    assert "first" in raised.value.__notes__[0]


def test_w10_no_write_begins_after_a_stop(make):
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
            assert self.let_go.wait(5)
            return super().write(batch)
        finally:
            self.ended = True


def test_the_answer_of_a_slow_transport_is_its_own(make):
    slow, fast = Slow("slow"), MemoryTransport("fast")
    slow.poison = {"x"}
    delivering = gevent.spawn(make(slow, fast)[0].deliver, rows("x", "y"))
    gevent.sleep(0.01)
    slow.let_go.set()

    deliveries = delivering.get(timeout=2)

    assert ({"x"}, set()) == (set(deliveries["slow"].dead), set(deliveries["fast"].dead))


def test_killed_while_it_delivers_it_leaves_nobody_writing(make):
    """A writer that lived on would write beside the next run, and into targets that were closed."""
    slow = Slow("slow")
    delivering = gevent.spawn(make(slow, MemoryTransport("fast"))[0].deliver, rows("x"))
    gevent.sleep(0.01)

    delivering.kill()

    assert slow.ended


class Both(MemoryTransport):
    """Finds a document dead and another busy in its first answer."""

    transactional = True

    def write(self, batch):
        self.busy = self.busy or [{"busy"}] * (not self.batches)
        return super().write(batch)


def test_a_part_that_is_tried_again_has_no_checkpoint(make):
    """The document that is dead already is in no letter yet when the rest is written."""
    target = Both("both")
    target.poison = {"dead"}
    whole = replace(rows("dead", "busy"), checkpoint=Checkpoint(seq=Seq.of("2-b")))

    make(target)[0].deliver(whole)

    assert [each.checkpoint is not None for each in target.batches] == [True, False]
