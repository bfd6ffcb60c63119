"""Documents that a pass could not write keep the rows that they had."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checkpoints import Checkpoint
from pillows.runtime.status import State
from pillows.stages.transforms import PythonTransform
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


@pytest.mark.parametrize("where", ["transform", "transport"])
def test_a_pass_keeps_the_older_row_of_a_dead_letter_and_sweeps_what_is_gone(tmp_path, running, where):
    """The dead letter says that it is an older one; when the document can be written, it is replaced."""
    target, broken = MemoryTransport(), set()

    def rows(doc):
        if doc["_id"] in broken:
            raise ValueError("a transform of today")
        return doc

    first = plan(
        tmp_path,
        ListFeed([batch("1-a", *(change(id, n=1) for id in ("good", "bad", "gone")), caught_up=True)]),
        target,
        clock=FakeClock(),
    )
    first = replaced(first, rows)
    run = running(first)
    run.until(lambda: run.tail.state is State.LIVE and len(target.live()) == 3)
    run.finish()

    (broken if where == "transform" else target.poison).add("bad")
    first.store.edit(KEY, Checkpoint.reset)
    feed = ListFeed([batch("1-b", *(change(id, n=1) for id in ("good", "bad")), caught_up=True)])
    feed.sums = {"good": 1, "bad": 1}
    again = running(replaced(first, rows, feed))
    again.until(lambda: again.tail.state is State.LIVE)
    assert target.live().keys() == {"good", "bad"}
    assert [dead_letter.id for dead_letter in first.dead_letters.list(KEY)] == ["bad"]

    broken.clear()
    target.poison.clear()
    first.dead_letters.retry(
        KEY, [(dead_letter.transport, "bad") for dead_letter in first.dead_letters.list(KEY)]
    )
    again.until(lambda: not first.dead_letters.count(KEY), seconds=60)
    assert again.finish().epoch == 2
    assert target.target["rows"]["bad"][0] >> 40 == 2


def test_a_letter_of_a_document_that_is_gone_keeps_no_row(tmp_path, running):
    """Its database was deleted and created anew; `make chaos` found the row as a phantom."""
    target, broken = MemoryTransport(), set()

    def rows(doc):
        if doc["_id"] in broken:
            raise ValueError("poison")
        return doc

    feed = ListFeed([batch("1-a", change("good"), change("bad"), caught_up=True)])
    first = replaced(plan(tmp_path, feed, target, clock=FakeClock()), rows)
    run = running(first)
    run.until(lambda: run.tail.state is State.LIVE and len(target.live()) == 2)
    run.finish()

    broken.add("bad")
    run = running(replaced(first, rows, ListFeed([batch("2-a", change("bad", "2-b"), caught_up=True)])))
    run.until(lambda: first.dead_letters.count(KEY) == 1)
    run.finish()

    first.store.edit(KEY, Checkpoint.reset)
    feed = ListFeed([batch("1-b", change("good"), caught_up=True)])
    feed.sums = {"good": 1}
    again = running(replaced(first, rows, feed))
    again.until(lambda: again.tail.state is State.LIVE)

    assert target.live().keys() == {"good"}
    again.finish()


def replaced(made, rows, feed=None):
    pillow = replace(made.pillow, transform=PythonTransform(rows, ("cases",)))
    return made.replaced(pillow=pillow, **({"make_feed": lambda: feed} if feed else {}))
