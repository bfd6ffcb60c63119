"""A pillow whose source was changed."""

from __future__ import annotations

import pytest

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError
from pillows.runtime.status import State
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


class Heir(MemoryTransport):
    def set_predecessors(self, former):
        self.heir_of = list(former)


def test_another_database_is_a_changed_source_until_it_is_reset(tmp_path, running):
    """The outputs hold what came from the former one: its rows are replaced, and nothing of it stays."""
    elsewhere = TailKey(KEY.pillow, "couch/other")
    target, ours = Heir(), ListFeed([batch("1-a", change("a", "3-a"), change("b", n=1))])
    first = plan(tmp_path, ours, target)
    run = running(first)
    run.until(lambda: len(target.live()) == 2)
    run.finish()

    theirs = ListFeed([batch("1-x", change("a", n="theirs"), caught_up=True)])
    moved = first.replaced(key=elsewhere, make_feed=lambda: theirs)
    with pytest.raises(ConfigError, match=r"was couch/cases, and is couch/other.*checkpoint reset cases"):
        running(moved).greenlet.get(timeout=60)
    back = running(first)
    back.until(lambda: len(ours.asked) == 2)
    back.finish()

    first.store.edit(elsewhere, Checkpoint.reset)
    run = running(moved)
    run.until(lambda: run.tail.state is State.LIVE)
    run.stop.set()
    run.greenlet.get(timeout=60)
    assert target.live() == {"a": {"_id": "a", "_rev": "1-a", "n": "theirs"}}
    assert target.heir_of == [KEY]
    with pytest.raises(ConfigError, match="was couch/other, and is couch/cases"):
        running(first).greenlet.get(timeout=60)
