"""The checkpoint of a running tail: moved by acknowledgements, saved when due.

Saved is never more than what was acknowledged. How far the saved one may lie behind bounds what is
seen again after a crash: `max_uncheckpointed` changes, or `interval_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from checkpoints import Checkpoint, CheckpointMoved, CheckpointStore, StoreWriteError, TailKey
from pillows.clock import Clock
from pillows.observer import Observer
from pillows.progress.watermark import WatermarkMove


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPolicy:
    """When a moved checkpoint is saved.

    Attributes:
        interval_seconds: at the latest so long after it moved.
        max_uncheckpointed: at the latest after so many changes.
    """

    interval_seconds: float = 5.0
    max_uncheckpointed: int = 1000


#: Dead letters that are not on disk yet hold the checkpoint of a transactional target back, so that
#: more is seen again after a crash. So they are put there soon: after so long, or after so many times
#: what the last save took, whichever is longer, so that a slow disk takes a twentieth of the time at most.
UNSETTLED_SECONDS = 0.5
UNSETTLED_SAVES = 20


class Checkpointer:
    """Keeps the checkpoint of one tail. Its callers take turns (`Tail` holds a lock around it).

    Args:
        store: where checkpoints are saved.
        key: the tail.
        checkpoint: where it stands; saved already.
        policy: when to save.
        clock: measures the interval.
        observer: is told of every save, and of a disk that refuses one.
        publish: called before each save with what will be saved: a transactional target's copy. Gives
            whether that was made; it is tried again with the next save, though nothing has moved.
        settle: called before any position is saved: makes durable what it relies on beside the targets,
            the dead letters.
        unsettled: whether something of that is not durable yet.

    Attributes:
        current: the newest acknowledged position; may not be saved yet.
        saved: what was saved last.
    """

    def __init__(
        self,
        store: CheckpointStore,
        key: TailKey,
        checkpoint: Checkpoint,
        *,
        policy: CheckpointPolicy,
        clock: Clock,
        observer: Observer,
        publish: Callable[[Checkpoint], bool] = lambda _: True,
        settle: Callable[[], None] = lambda: None,
        unsettled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._key = key
        self._policy = policy
        self._clock = clock
        self._observer = observer
        self._publish = publish
        self._settle = settle
        self._unsettled = unsettled
        self._saved_at = clock.monotonic()
        self._copied = True
        self._save_seconds = 0.0
        self.current = self.saved = checkpoint

    def after(self, advance: WatermarkMove) -> Checkpoint:
        """The checkpoint as it would be after this move."""
        return replace(
            self.current,
            seq=advance.seq or self.current.seq,
            purge_seq=advance.purge_seq or self.current.purge_seq,
            changes=self.current.changes + advance.changes,
            saved_at=self._clock.wall(),
        )

    def move(self, advance: WatermarkMove) -> None:
        """Moves the checkpoint over acknowledged changes; saves it if that is due."""
        self.current = self.after(advance)
        self.save_if_due()

    def save_if_due(self) -> None:
        """Saves what has moved for long enough, and notices an operator's edit.

        Raises:
            CheckpointMoved: an operator edited the checkpoint; start again from there.
        """
        age_seconds = self._clock.monotonic() - self._saved_at
        behind = self.current.changes - self.saved.changes
        if behind >= self._policy.max_uncheckpointed or age_seconds >= self._interval_seconds():
            self.save()

    def save(self) -> None:
        """Saves the checkpoint durably, if it has moved.

        A full disk is told and survived: the saved position stays where it is, so more is seen
        again after a crash, and nothing is lost.

        Raises:
            CheckpointMoved: an operator edited the checkpoint; start again from there.
        """
        self._saved_at = began = self._clock.monotonic()
        self._refuse_edited()
        if self.current == self.saved and self._copied and not self._unsettled():
            return
        checkpoint = self.current
        try:
            self._settle()
            if checkpoint == self.saved and self._copied:
                return
            self._copied = self._publish(checkpoint)
            self._store.save(self._key, checkpoint)
        except StoreWriteError as error:
            details = {"error": str(error)}
            self._observer.warning(self._key, event="checkpoint.not_saved", details=details)
            return
        self.saved = checkpoint
        seconds = self._save_seconds = self._clock.monotonic() - began
        self._observer.checkpoint(self._key, checkpoint=checkpoint, seconds=seconds)

    def change(self, **fields: Any) -> None:
        """Changes fields of the checkpoint (epoch, pass) and saves it at once.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
            StoreWriteError: it could not be saved, and nothing has changed.
        """
        self._settle()
        changed = replace(self.current, saved_at=self._clock.wall(), **fields)
        self._store.save(self._key, changed)
        self.current = self.saved = changed
        self._copied = False

    def _interval_seconds(self) -> float:
        longest = self._policy.interval_seconds
        if not self._unsettled():
            return longest
        return min(longest, max(UNSETTLED_SECONDS, UNSETTLED_SAVES * self._save_seconds))

    def _refuse_edited(self) -> None:
        stored = self._store.get(self._key)
        if stored is None or stored.edits != self.current.edits:
            raise CheckpointMoved
