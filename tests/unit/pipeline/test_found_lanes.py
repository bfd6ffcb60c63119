"""Batches in flight side by side, when the source turns out to have been purged."""

from __future__ import annotations

import gevent

from pillows.feed.base import DatabaseIdentity
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import plan


class Late(MemoryTransport):
    """A target whose lane with the document `late` answers once the other one has raised the epoch."""

    concurrent = True
    late = ""

    def write(self, batch):
        if batch.epoch == 1 and any(document.id == self.late for document in batch.documents):
            with gevent.Timeout(60):
                while self.target["epoch"] < 2:
                    gevent.sleep(0.001)
        return super().write(batch)


def purged(purge_seq):
    return DatabaseIdentity(server_uuid="u", instance_start_time="1700000000", purge_seq=purge_seq)


def test_what_was_in_flight_when_the_epoch_was_raised_is_written_again_too(tmp_path, running):
    """`a` and `d` were purged and created anew at the same generation; each comes in a lane of its own."""
    memory = Late()
    feed = ListFeed([batch(1, change("a", n="old"), change("d", n="old"))], identity=purged("0-p"))
    first = running(plan(tmp_path, feed, memory, max_in_flight=2))
    first.until(lambda: first.tail.status().changes == 2)
    first.finish()

    memory.late = "d"
    feed.identity = purged("2-p")
    feed.queue = [batch(1), batch(2, change("a", "1-b", n="new"), change("d", "1-b", n="new"))]
    again = running(first.settings)
    again.until(lambda: again.tail.status().changes == 4)
    assert {id: row["n"] for id, row in memory.live().items()} == {"a": "new", "d": "new"}
    assert again.finish().epoch == 2
