"""What a run saves: no position past a gap, one save at a time, and each again that failed."""

from __future__ import annotations

import gevent
from gevent.event import Event

from pillows.errors import RetryableError
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.progress import checkpointer
from pillows.progress.checkpointer import CheckpointOptions
from pillows.runtime.status import State
from pillows.stages.filters import PythonFilter
from pillows.stages.transforms import PassThrough
from tests.support.clock import FakeClock
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


class Copying(MemoryTransport):
    """A target with the checkpoint that counts; saving it without rows fails as often as told."""

    transactional = True

    def __init__(self):
        super().__init__()
        self.away = 0
        self.seq = None

    def write(self, batch):
        if not batch.documents and self.away:
            self.away -= 1
            raise RetryableError("the line was cut")
        result = super().write(batch)
        if batch.checkpoint is not None and not result.dead:
            self.seq = str(batch.checkpoint.seq)
        return result


def test_replay_after_a_clean_stop_a_copy_that_failed_once_is_made_with_the_next_save(tmp_path, running):
    """Else the older copy counts at the next start, and what was written since is written again."""
    target = Copying()
    target.away, target.poison = 1, {"bad"}  # with a dead letter to bury, the rows bring no checkpoint along
    feed = ListFeed([batch("1-a", change("good"), change("bad"))])
    run = running(plan(tmp_path, feed, target, clock=FakeClock()))
    run.until(lambda: run.tail.state is State.LIVE or len(target.live()) == 1)
    run.until(lambda: not target.away)

    assert str(run.finish().seq) == target.seq == "1-a"


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


def test_the_last_save_of_a_run_waits_for_the_regular_one(tmp_path, running, monkeypatch):
    """Both would be within one transaction of PostgreSQL, and one commit half of the other."""
    feed = ListFeed([batch(1)])  # a position without rows: it goes to the target by itself
    monkeypatch.setattr(checkpointer, "IDLE_SECONDS", 0.0)
    memory = OneLine()
    run = running(plan(tmp_path, feed, memory, checkpoints=CheckpointOptions(interval=0.01)))
    run.until(lambda: memory.saving)
    run.stop.set()
    for _ in range(100):
        gevent.sleep(0)
    memory.may_go_on.set()
    run.finish()
    assert memory.most == 1


class Filtered(Observer):
    """Keeps how many changes of the feed were filtered out, batch by batch."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def change(self, _tail, *, count, kept, filtered):
        self.counts.append(filtered)


def test_documents_sent_beside_the_feed_are_not_counted_as_its_changes(tmp_path, running):
    """A backfill sends documents in the middle of a batch of the feed."""
    begun, sent, seen = Event(), Event(), Filtered()

    def is_kept(each):
        if each.id == "fed":
            begun.set()
            assert sent.wait(60)
        return each.id == "fed"

    def backfill(sender):
        begun.wait(60)
        sender.write([change("a"), change("b")])
        sent.set()

    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(is_kept, needs_document=False),
        transform=PassThrough(("cases",)),
    )
    feed = ListFeed([batch("1-a", change("fed"), caught_up=True)])
    run = running(plan(tmp_path, feed, MemoryTransport(), pillow=pillow, observer=seen, backfill=backfill))
    run.until(lambda: seen.counts)
    assert seen.counts == [0]
