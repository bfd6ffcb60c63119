"""Several batches in flight: each document in order, the checkpoint over no gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import Checkpoint, Seq
from pillows.delivery.batcher import BatchOptions
from pillows.errors import ConfigError, FatalError, RetryableError
from pillows.feed.base import DatabaseIdentity
from pillows.models import Batch, WriteResult, write_version
from pillows.progress.checkpointer import CheckpointOptions
from pillows.runtime.status import State
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.sizes import size
from tests.support.tails import plan

LANES = 4
SMALL = BatchOptions(max_docs=3)


class Concurrent(MemoryTransport):
    """Takes several batches at once.

    Attributes:
        before: called with each batch before it is written.
        most: so many were in flight at once.
        order: id -> the versions that arrived, in order.
    """

    concurrent = True

    def __init__(self, before: Callable[[Batch], None] = lambda _: None) -> None:
        super().__init__()
        self.before = before
        self.most = self.in_flight = 0
        self.order: dict[str, list[int]] = {}

    def write(self, batch: Batch) -> WriteResult:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            self.before(batch)
            for document in batch.documents:
                self.order.setdefault(document.id, []).append(document.leaf_version)
            return super().write(batch)
        finally:
            self.in_flight -= 1


def test_several_batches_are_in_flight_and_each_document_stays_in_order(tmp_path, running):
    target = Concurrent(lambda _: gevent.sleep(0.001))
    changes = [change(f"d{n % 7}", f"{1 + n // 7}-a", n=n) for n in range(210)]
    feed = ListFeed([batch(f"{n}-a", *changes[n * 10 : n * 10 + 10]) for n in range(21)])
    run = running(plan(tmp_path, feed, target, max_in_flight=LANES, batch=SMALL))

    run.until(
        lambda: all(target.target["rows"].get(f"d{n}", (0,))[0] == write_version(1, 30) for n in range(7))
    )
    checkpoint = run.finish()

    assert 1 < target.most <= LANES
    assert all(versions == sorted(versions) for versions in target.order.values())
    assert (checkpoint.seq, checkpoint.changes) == (Seq.of("20-a"), 210)


def test_the_checkpoint_waits_for_the_one_batch_that_is_late(tmp_path, running):
    """All others are written, and none of them counts."""
    go = Event()

    def hold(batch: Batch) -> None:
        if any(document.id == "late" for document in batch.documents):
            go.wait(60)

    target = Concurrent(hold)
    feed = ListFeed(
        [batch("1-a", change("first")), batch("2-b", change("late"))]
        + [batch(f"{n}-c", change(f"d{n}")) for n in range(3, 40)]
    )
    eager = CheckpointOptions(max_uncheckpointed=1)
    made = plan(tmp_path, feed, target, max_in_flight=LANES, checkpoints=eager)
    run = running(made)
    written = target.target["rows"]

    # What shares the late document's partition waits behind it.
    run.until(lambda: len(written) > 15 and target.in_flight == 1)
    assert made.store.get(KEY).seq in {Seq.BEGINNING, Seq.of("1-a")}

    go.set()
    run.until(lambda: len(written) == 39)
    assert run.finish().seq == Seq.of("39-c")


def test_a_lane_that_fails_for_good_stops_the_tail_before_its_gap(tmp_path, running):
    def refuse(batch: Batch) -> None:
        if any(document.id == "d20" for document in batch.documents):
            raise FatalError("the index is gone")

    target = Concurrent(refuse)
    feed = ListFeed([batch(f"{n}-a", change(f"d{n}")) for n in range(40)])
    made = plan(tmp_path, feed, target, max_in_flight=LANES, batch=BatchOptions(max_docs=1))
    run = running(made)

    with pytest.raises(FatalError, match="the index is gone"):
        run.greenlet.get(timeout=60)

    assert int(str(made.store.get(KEY).seq).partition("-")[0]) < 20


def test_a_document_that_went_back_is_written_again_while_other_lanes_write(tmp_path, running):
    """The epoch goes up under their batches in flight, which nothing depends on."""
    target = Concurrent(lambda _: gevent.sleep(0.001))
    target.target = {"rows": {"back": (write_version(1, 9), {})}, "epoch": 1}
    changes = [change(f"d{n}") for n in range(60)]
    changes[30:30] = [change("back", "2-b", n="again")]
    feed = ListFeed([batch("1-a", *changes, caught_up=True)])
    feed.sums = {"back": 2}
    made = plan(tmp_path, feed, target, max_in_flight=LANES, batch=SMALL, clock=FakeClock())
    made.store.edit(KEY, lambda _: Checkpoint(seq=Seq.BEGINNING))
    run = running(made)

    run.until(lambda: run.tail.state is State.LIVE)

    assert run.finish().epoch == 2
    assert target.live()["back"]["n"] == "again"
    assert len(target.live()) == 61


def test_a_target_that_writes_in_order_refuses_several_batches_in_flight(tmp_path, running):
    feed = ListFeed([batch("1-a", change("a"))])
    run = running(plan(tmp_path, feed, MemoryTransport(), max_in_flight=2))

    with pytest.raises(ConfigError, match="memory writes one batch after the other"):
        run.greenlet.get(timeout=60)


class Whimsical(Concurrent):
    """Answers late, never, or for a part, as it is told; once told everything it works."""

    def __init__(self, answers: Sequence[str]) -> None:
        super().__init__()
        self.answers = list(answers)

    def write(self, batch: Batch) -> WriteResult:
        answer = self.answers.pop() if self.answers else "fine"
        if answer == "late":
            gevent.sleep(0.001)
        if answer == "away":
            raise RetryableError("away")
        if answer == "part":
            self.busy.append({batch.documents[0].id} if batch.documents else set())
        if answer == "lost":
            super().write(batch)
            raise RetryableError("no answer")
        return super().write(batch)


@settings(
    max_examples=size(ci=25, proof=500),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    history=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    answers=st.lists(st.sampled_from(["fine", "late", "away", "part", "lost"]), max_size=40),
    cut=st.integers(1, 9),
    partitions=st.integers(2, 5),
)
def test_whatever_the_target_does_the_checkpoint_passes_only_what_it_has(
    tmp_path_factory, running, history, answers, cut, partitions
):
    """Random histories of ten documents, cut anywhere, with a target that has moods."""
    folder: Path = tmp_path_factory.mktemp("partitions")
    versions: dict[int, int] = {}
    changes, ends = [], []
    for id in history:
        versions[id] = versions.get(id, 0) + 1
        changes.append(change(f"d{id}", f"{versions[id]}-a"))
        ends.append({f"d{known}": count for known, count in versions.items()})
    feed = ListFeed([batch(f"{n}-a", each, caught_up=n == len(changes)) for n, each in enumerate(changes, 1)])
    target = Whimsical(answers)
    made = plan(
        folder,
        feed,
        target,
        clock=FakeClock(),
        max_in_flight=partitions,
        batch=BatchOptions(max_docs=cut),
        checkpoints=CheckpointOptions(max_uncheckpointed=1),
    )
    save = made.store.save

    def look(key: Any, checkpoint: Any, *, flush: bool = True, keep_history: bool = True) -> None:
        """Whatever is saved is there."""
        passed = int(str(checkpoint.seq).partition("-")[0])
        for id, version in ends[passed - 1].items() if passed else ():
            assert target.target["rows"][id][0] >= write_version(1, version), (id, version, passed)
        save(key, checkpoint, flush=flush, keep_history=keep_history)

    made.store.save = look  # type: ignore[assignment]
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE, 30)
    made.store.save = save

    assert run.finish().seq == Seq.of(f"{len(changes)}-a")
    assert {id: stored for id, (stored, _) in target.target["rows"].items()} == {
        id: write_version(1, version) for id, version in ends[-1].items()
    }


class Late(MemoryTransport):
    """A target whose partition with the document `late` answers once the other one has raised the epoch."""

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
    """`a` and `d` were purged and recreated at the same revision number, each in its own partition."""
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
