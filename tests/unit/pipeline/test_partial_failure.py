"""A batch of which a part was written."""

from __future__ import annotations

from pillows.progress.checkpointer import CheckpointOptions
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


def test_a_partial_failure_does_not_advance_the_token(tmp_path, running, clock):
    """Three of four are not enough: the checkpoint waits for the last one, and a restart sees it again."""
    target = MemoryTransport()
    target.busy = [{"c"}] * 10_000
    feed = ListFeed([batch("1-a", *map(change, "abcd")), batch("2-b", change("e"), caught_up=True)])
    made = plan(tmp_path, feed, target, clock=clock, checkpoints=CheckpointOptions(interval=0.01))
    run = running(made)
    run.until(lambda: len(target.batches) > 20)
    assert target.live().keys() >= {"a", "b", "d"}
    saved = run.settings.store.get(KEY)
    assert (saved.seq.value, saved.changes) == (0, 0), "not even after many tries"
    run.greenlet.kill()

    target.busy.clear()
    again = running(made)
    again.until(lambda: len(target.live()) == 5)
    assert again.finish().seq.value == "2-b"
