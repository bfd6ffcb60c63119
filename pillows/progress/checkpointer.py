"""The checkpoint of a running tail: moved by acknowledgements, saved when due.

It is never ahead of the acknowledged changes. After a crash, the changes since the saved checkpoint are
processed again: at most `max_uncheckpointed`, or those of one `interval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal, Protocol

from msgspec.structs import replace
from pydantic import Field

from checkpoints import Checkpoint, CheckpointMoved, StoreWriteError, TailKey
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.observer import Observer
from pillows.options import Duration, Options
from pillows.progress.watermark import PendingRange, Watermark, WatermarkMove
from pillows.retry.retrier import Retrier
from pillows.transports.base import Transport

#: Dead letters that are not on disk yet hold back the checkpoint of a transactional target, so that more
#: is processed again after a crash. So they are flushed soon: after this time, or after this multiple of
#: the last save's duration, whichever is longer, so that a slow disk is busy for a twentieth of the time.
UNFLUSHED_SECONDS = 0.5
UNFLUSHED_SAVES = 20

#: Longest time until a position is saved that passed no change. An idle source gives another one every 25 s,
#: and each save costs a write to the target, too.
IDLE_SECONDS = 50.0


class CheckpointOptions(Options):
    """How progress is saved.

    Attributes:
        type: the store; `pod`, a name from an earlier format, is the journal in `state_dir`.
        interval: longest time between two saves while changes arrive.
        max_uncheckpointed: most changes between two saves; after a crash, these and the batches in flight
            are processed again.
    """

    type: Literal["pod"] = "pod"
    interval: Duration = Field(default=5.0, gt=0)
    max_uncheckpointed: int = Field(default=1000, ge=1)


class Checkpoints(Protocol):
    """The checkpoints that a tail reads and writes; see `CheckpointStore` for each method."""

    def get(self, tail: TailKey) -> Checkpoint | None:
        """Return the last saved checkpoint; None if the tail never had one."""

    def save(self, tail: TailKey, checkpoint: Checkpoint) -> None:
        """Store a running tail's checkpoint; it is on disk when this returns."""

    def edit(self, tail: TailKey, change: Callable[[Checkpoint | None], Checkpoint]) -> Checkpoint:
        """Store an edit of a checkpoint, and count it."""

    def keys(self) -> list[TailKey]:
        """List the tails that have a checkpoint."""

    def watching(self, tail: TailKey, on_edit: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `on_edit` inside the block after each edit of a tail's checkpoint."""


class Checkpointer:
    """Moves and saves the checkpoint of one tail. Its callers hold the tail's lock.

    Args:
        store: where checkpoints are saved.
        key: the tail.
        checkpoint: the saved checkpoint that the tail continues from.
        options: when to save.
        clock: measures the interval.
        observer: receives every save, and every save that failed.
        dead_letters: synced before a position after them is saved.
        copy_to_target: saves a checkpoint in a transactional target, and returns whether that worked; it is
            retried with the next save. None if no target keeps a copy.

    Attributes:
        current: the newest acknowledged position; may not be saved yet.
        saved: the checkpoint that was saved last.
        save_error: why the last save failed; empty if it succeeded.
    """

    def __init__(
        self,
        store: Checkpoints,
        key: TailKey,
        checkpoint: Checkpoint,
        *,
        options: CheckpointOptions,
        clock: Clock,
        observer: Observer,
        dead_letters: DeadLetters | None = None,
        copy_to_target: Callable[[Checkpoint], bool] | None = None,
    ) -> None:
        self._store = store
        self._key = key
        self._options = options
        self._clock = clock
        self._observer = observer
        self._dead_letters = dead_letters
        self._copy_to_target = copy_to_target
        self.save_error = ""
        self._saved_at = clock.monotonic()
        self._save_seconds = 0.0
        self._is_edited = False
        self._in_target: Checkpoint | None = checkpoint
        self.current = self.saved = checkpoint

    def preview(self, move: WatermarkMove) -> Checkpoint:
        """Return the checkpoint after this move, without moving it."""
        return replace(
            self.current,
            seq=move.seq or self.current.seq,
            purge_seq=move.purge_seq or self.current.purge_seq,
            pass_done=move.pass_done or self.current.pass_done,
            changes=self.current.changes + move.changes,
            saved_at=self._clock.wall(),
        )

    def advance(self, move: WatermarkMove, committed: Checkpoint | None = None) -> None:
        """Move the checkpoint over acknowledged changes; save it if that is due.

        Args:
            move: the progress of the watermark.
            committed: the checkpoint that a transactional target saved with the rows of this move.

        Raises:
            CheckpointMoved: an operator edited the checkpoint; start again from there.
        """
        self.current = self.preview(move)
        if committed is not None and replace(self.current, saved_at=committed.saved_at) == committed:
            self.current = self._in_target = committed
        self.save_if_due()

    def note_edit(self) -> None:
        """Note that the stored checkpoint was edited: the next save is due at once."""
        self._is_edited = True

    def save_if_due(self) -> None:
        """Save a checkpoint that moved long enough ago, and notice an operator's edit.

        Raises:
            CheckpointMoved: an operator edited the checkpoint; start again from there.
        """
        behind = self.current.changes - self.saved.changes
        if behind >= self._options.max_uncheckpointed or self.seconds_to_save() == 0.0:
            self.save()

    def seconds_to_save(self) -> float | None:
        """Return the seconds until a save is due; None if everything is saved."""
        if self._is_edited:
            return 0.0
        if self._has_unflushed():
            limit_seconds = self._flush_seconds
        elif (
            self.current.changes != self.saved.changes
            or self.current.purge_seq != self.saved.purge_seq
            or self.save_error
            or (self._copy_to_target is not None and self._in_target is None)
        ):
            limit_seconds = self._options.interval
        elif self.current != self.saved:
            limit_seconds = max(IDLE_SECONDS, self._options.interval)
        else:
            return None
        return max(0.0, self._saved_at + limit_seconds - self._clock.monotonic())

    def save(self) -> None:
        """Save the checkpoint durably, if it has moved.

        A full disk is reported and survived: the saved position stays where it is, so more is processed
        again after a crash, and nothing is lost.

        Raises:
            CheckpointMoved: an operator edited the checkpoint; start again from there.
        """
        self._saved_at = began = self._clock.monotonic()
        checkpoint = self.current
        try:
            self._flush_dead_letters()
            if checkpoint == self.saved and self._is_in_target(checkpoint):
                self.save_error = ""
                self._refuse_edited()
                return
            self.copy()
            self._store.save(self._key, checkpoint)
        except StoreWriteError as error:
            self.save_error = str(error)
            details = {"error": self.save_error}
            self._observer.warning(self._key, event="checkpoint.not_saved", details=details)
            self._refuse_edited()
            return
        self.save_error = ""
        self.saved = checkpoint
        self._save_seconds = self._clock.monotonic() - began
        self._observer.checkpoint(self._key, checkpoint=checkpoint, seconds=self._save_seconds)

    def update(self, **fields: Any) -> None:
        """Change fields of the checkpoint (epoch, pass) and save it at once.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
            StoreWriteError: the write failed; nothing was changed.
        """
        self._flush_dead_letters()
        changed = replace(self.current, saved_at=self._clock.wall(), **fields)
        self._store.save(self._key, changed)
        self.current = self.saved = changed
        self._in_target = None

    def copy(self) -> None:
        """Save the checkpoint in a transactional target, unless it is there."""
        checkpoint = self.current
        if self._copy_to_target is not None and self._in_target != checkpoint:
            self._in_target = checkpoint if self._copy_to_target(checkpoint) else None

    @property
    def _flush_seconds(self) -> float:
        """Longest time until new dead letters are synced."""
        return min(self._options.interval, max(UNFLUSHED_SECONDS, UNFLUSHED_SAVES * self._save_seconds))

    def _has_unflushed(self) -> bool:
        """Return whether a dead letter of the tail is not on disk yet."""
        return self._dead_letters is not None and self._dead_letters.unsynced(self._key)

    def _flush_dead_letters(self) -> None:
        if self._dead_letters is not None and self._has_unflushed():
            self._dead_letters.sync(self._key)

    def _is_in_target(self, checkpoint: Checkpoint) -> bool:
        return self._copy_to_target is None or self._in_target == checkpoint

    def _refuse_edited(self) -> None:
        stored = self._store.get(self._key)
        if stored is None or stored.edits != self.current.edits:
            raise CheckpointMoved


class TailProgress:
    """Moves watermark and checkpoint together, and stores a new epoch everywhere.

    Args:
        checkpointer: the checkpoint.
        transports: the open targets.
        retrier: retries unreachable targets and stores.

    Attributes:
        watermark: the changes in flight.
        checkpointer: the checkpoint.
        is_transactional: whether the only target saves the checkpoint with the rows.
    """

    def __init__(self, checkpointer: Checkpointer, transports: Sequence[Transport], retrier: Retrier) -> None:
        self.watermark = Watermark()
        self.checkpointer = checkpointer
        self.is_transactional = is_transactional(transports)
        self._transports = transports
        self._retrier = retrier

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest acknowledged position; may not be saved yet."""
        return self.checkpointer.current

    def preview(self, acks: Mapping[PendingRange, int]) -> Checkpoint:
        """Return the checkpoint after these acknowledgements, without taking them."""
        return self.checkpointer.preview(self._end_pass(self.watermark.peek(acks)))

    def acknowledge(
        self, acks: Mapping[PendingRange, int], committed: Checkpoint | None = None
    ) -> WatermarkMove:
        """Take acknowledgements, and move the checkpoint; save it if that is due.

        Args:
            acks: range -> number of its changes.
            committed: the checkpoint that a transactional target saved with these changes.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
        """
        move = self._end_pass(self.watermark.ack(acks))
        self.checkpointer.advance(move, committed)
        return move

    def update(self, **fields: Any) -> None:
        """Change fields of the checkpoint and save it; retry failed writes.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
            StoppedError: a stop was requested meanwhile.
        """
        self._retrier.retry_write("checkpoint", partial(self.checkpointer.update, **fields))

    def raise_epoch(self, least: int = 0) -> None:
        """Raise the epoch, durably here and in every target.

        Args:
            least: to this one, or if that is not enough by one.
        """
        self.update(epoch=max(self.checkpoint.epoch + 1, least))
        acquire(self._transports, self._retrier, self.checkpoint)

    def _end_pass(self, move: WatermarkMove) -> WatermarkMove:
        """Return a move that completes the first pass by itself, if it reaches the head."""
        needs_nothing = self.checkpoint.first_pass and not any(each.needs_finish for each in self._transports)
        return replace(move, pass_done=True) if move.caught_up and needs_nothing else move


def acquire(transports: Sequence[Transport], retrier: Retrier, checkpoint: Checkpoint) -> None:
    """Store the epoch for all further writes in every target; retry unreachable ones.

    Raises:
        FatalError: a target cannot store it.
        StoppedError: a stop was requested meanwhile.
    """
    for transport in transports:
        retrier.retry_write(transport.name, partial(transport.acquire, checkpoint))


def is_transactional(transports: Sequence[Transport]) -> bool:
    """Return whether the only target saves rows and checkpoint in one transaction."""
    return len(transports) == 1 and transports[0].transactional
