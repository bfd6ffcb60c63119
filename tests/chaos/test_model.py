"""Checkpoint, watermark and fan-out as a state machine: the saved position never passes what is not written.

The parts are the real ones; the source is a list of numbers whose position is the number itself, and
the transports are sets that fail when they are told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from gevent.event import Event
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from checkpoints import Checkpoint, CheckpointMoved, Seq, StoreWriteError, TailKey
from pillows.delivery.fanout import FanOut
from pillows.errors import RetryableError, StoppedError
from pillows.models import Batch, Change, ChangeBatch, DocumentRows, WriteResult
from pillows.observer import Observer
from pillows.progress.checkpointer import Checkpointer, CheckpointOptions
from pillows.progress.watermark import PendingRange, Watermark
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from tests.support.clock import FakeClock
from tests.support.sizes import size

KEY = TailKey("pillow", "couch/db")


class Target:
    """A transport that records the changes written to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has: set[int] = set()
        self.answers: list[str] = []

    def write(self, batch: Batch) -> WriteResult:
        answer = self.answers.pop(0) if self.answers else "all"
        if answer == "away":
            raise RetryableError("away")
        if answer == "lost":  # it was written, and nobody heard of it
            self.has |= {document.leaf_version for document in batch.documents}
            raise RetryableError("no answer")
        half = batch.documents[: len(batch.documents) // 2] if answer == "half" else batch.documents
        self.has |= {document.leaf_version for document in half}
        rest = batch.documents[len(half) :]
        return WriteResult(retry={document.id: "busy" for document in rest})


class Store:
    """A checkpoint store in memory that can be full."""

    def __init__(self) -> None:
        self.saved = Checkpoint(seq=Seq.of(0))
        self.full = False

    def get(self, key: TailKey) -> Checkpoint:
        return self.saved

    def save(self, key: TailKey, checkpoint: Checkpoint) -> None:
        if self.full:
            raise StoreWriteError("full")
        if checkpoint.edits != self.saved.edits:
            raise CheckpointMoved
        self.saved = checkpoint


class Machine(RuleBasedStateMachine):
    """A tail that is fed, acknowledged, killed and edited."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.targets = [Target("one"), Target("two")]
        self.waived: set[int] = set()
        self.end = 0
        self.start()

    def start(self) -> None:
        """Start a process, which knows only the saved checkpoint."""
        clock = FakeClock()
        stopped = Event()
        stopped.set()  # so a wait before another try ends the batch: it stays unacknowledged
        retrier = Retrier(KEY, StopAwareWaiter(clock, stopped), Observer())
        self.fanout = FanOut(self.targets, retrier)  # type: ignore[arg-type]
        self.watermark = Watermark()
        self.checkpointer = Checkpointer(
            self.store,  # type: ignore[arg-type]
            KEY,
            self.store.saved,
            options=CheckpointOptions(max_uncheckpointed=5, interval=1e9),
            clock=clock,
            observer=Observer(),
        )
        self.read = int(str(self.store.saved.seq))
        self.pending: list[tuple[PendingRange, Sequence[int]]] = []

    # --- events

    @rule(count=st.integers(0, 4), has_seq=st.booleans(), pieces=st.integers(1, 3))
    def arrives(self, count: int, has_seq: bool, pieces: int) -> None:
        """Receive changes, with or without a position at their end, in batches of any size."""
        numbers = list(range(self.read + 1, self.read + count + 1))
        self.read += count
        self.end = max(self.end, self.read)
        seq = Seq.of(self.read) if has_seq else None
        if not numbers and seq is None:
            return
        changes = [Change(str(n), (f"1-{n}",), n) for n in numbers]
        segment = self.watermark.begin(ChangeBatch(changes=changes, seq=seq))
        if not numbers:
            self.pending.append((segment, []))
        for piece in range(pieces):
            if part := numbers[piece::pieces]:
                self.pending.append((segment, part))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), answers=st.lists(st.sampled_from(["all", "away", "half", "lost"]), max_size=2))
    def written(self, data: st.DataObject, answers: list[str]) -> None:
        """Write any waiting batch; if a transport fails, it waits again."""
        at = data.draw(st.integers(0, len(self.pending) - 1))
        segment, numbers = self.pending[at]
        for target, answer in zip(self.targets, answers, strict=False):
            target.answers = [answer]
        documents = [DocumentRows(id=str(n), rev=f"1-{n}", leaf_version=n, rows={}) for n in numbers]
        try:
            if documents:
                self.fanout.deliver(Batch(documents=documents, epoch=1))
        except StoppedError:
            return
        finally:
            for target in self.targets:
                target.answers = []
        self.pending.pop(at)
        self.moves(lambda: self.checkpointer.advance(self.watermark.ack({segment: max(1, len(numbers))})))

    @rule()
    def saves(self) -> None:
        self.moves(self.checkpointer.save)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.store.full = full

    @rule()
    def crashes(self) -> None:
        self.start()

    @rule(data=st.data())
    def operator_edits(self, data: st.DataObject) -> None:
        """Move the checkpoint back or forward; the operator answers for changes that are skipped."""
        position = data.draw(st.integers(0, self.end))
        saved = self.store.saved
        self.waived |= set(range(int(str(saved.seq)) + 1, position + 1))
        self.store.saved = replace(saved, seq=Seq.of(position), edits=saved.edits + 1)

    def moves(self, call: Any) -> None:
        try:
            call()
        except CheckpointMoved:
            self.start()

    # --- invariants

    @invariant()
    def what_is_saved_is_written_everywhere(self) -> None:
        passed = set(range(1, int(str(self.store.saved.seq)) + 1)) - self.waived
        for target in self.targets:
            assert passed <= target.has, (self.store.saved.seq, sorted(passed - target.has))

    @invariant()
    def what_is_saved_is_no_further_than_what_is_acknowledged(self) -> None:
        if self.store.saved.edits == self.checkpointer.current.edits:
            assert int(str(self.store.saved.seq)) <= int(str(self.checkpointer.current.seq))


def run(machine: type[RuleBasedStateMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(size(ci=120, proof=3600))
def test_the_saved_position_never_passes_an_unacknowledged_change() -> None:
    run(Machine, size(ci=150, proof=10_000))


class Hasty(Machine):
    """The same, with the planted bug that a change is acknowledged when it arrives."""

    def arrives(self, count: int, has_seq: bool, pieces: int) -> None:
        super().arrives(count, has_seq, pieces)
        for segment, numbers in self.pending:
            self.moves(
                lambda s=segment, n=numbers: self.checkpointer.advance(
                    self.watermark.ack({s: max(1, len(n))})
                )
            )
        self.pending = []

    arrives = rule(count=st.integers(1, 4), has_seq=st.booleans(), pieces=st.integers(1, 3))(arrives)


def test_the_model_notices_a_checkpoint_before_the_acknowledgement() -> None:
    with pytest.raises(AssertionError):
        run(Hasty, 200)
