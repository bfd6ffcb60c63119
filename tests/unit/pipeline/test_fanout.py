"""One batch to several transports: all awaited, each retried alone."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

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
