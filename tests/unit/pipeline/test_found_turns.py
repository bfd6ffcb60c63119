"""Who uses a target's connection takes turns, at the end of a run too."""

from __future__ import annotations

import gevent
from gevent.event import Event

from pillows.progress.checkpointer import CheckpointOptions
from tests.support.list_feed import ListFeed, batch
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import plan


class OneLine(MemoryTransport):
    """A target with one connection, on which a save takes as long as the test wants."""

    transactional = True

    def __init__(self) -> None:
        super().__init__()
        self.saving = 0
        self.most = 0
        self.may_go_on = Event()

    def write(self, batch):
        if batch.documents:
            return super().write(batch)
        self.saving += 1
        self.most = max(self.most, self.saving)
        self.may_go_on.wait(60)
        self.saving -= 1
        return super().write(batch)


def test_the_last_save_of_a_run_waits_for_the_regular_one(tmp_path, running):
    """Both would be within one transaction of PostgreSQL, and one commit half of the other."""
    feed = ListFeed([batch(1)])  # a position without rows: it goes to the target by itself
    memory = OneLine()
    run = running(plan(tmp_path, feed, memory, checkpoints=CheckpointOptions(interval=0.01)))
    run.until(lambda: memory.saving)
    run.stop.set()
    for _ in range(100):
        gevent.sleep(0)
    memory.may_go_on.set()
    run.finish()
    assert memory.most == 1
