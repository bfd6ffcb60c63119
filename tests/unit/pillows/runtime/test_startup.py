"""Starting on a source that was changed, or that tells more about itself than before."""

from __future__ import annotations

import pytest

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError
from pillows.feed.base import DatabaseIdentity
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


@pytest.mark.parametrize("before", ["0", "", None])
def test_a_server_that_is_upgraded_tells_when_its_database_was_created(tmp_path, running, before):
    """Up to 3.2 it is "0"; kept for ever, no database that is created anew would be noticed."""
    memory = MemoryTransport()
    feed = ListFeed(
        [batch(1, change("a"), caught_up=True)], identity=DatabaseIdentity(instance_start_time=before)
    )
    run = running(plan(tmp_path, feed, memory))
    run.until(lambda: run.tail.status().changes == 1)
    assert run.finish().instance_start_time == before

    feed.identity = DatabaseIdentity(instance_start_time="1700000000", server_uuid="u", purge_seq="0-p")
    again = running(run.settings)
    again.until(lambda: again.tail.status().seq is not None)
    checkpoint = again.finish()
    assert (checkpoint.instance_start_time, checkpoint.purge_seq) == ("1700000000", "0-p")

    feed.identity = DatabaseIdentity(instance_start_time="1800000000", server_uuid="v", purge_seq="5-p")
    again = running(run.settings)
    again.until(lambda: again.tail.status().seq is not None)
    assert again.finish().instance_start_time == "1700000000"  # the feed is to find that out
