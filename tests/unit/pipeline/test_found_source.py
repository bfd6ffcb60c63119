"""Whether the source is still the same: what a server tells only later is noted then."""

from __future__ import annotations

import pytest

from pillows.feed.base import DatabaseIdentity
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import plan


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
