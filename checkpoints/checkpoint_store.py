"""The checkpoints of a state directory, and their history.

A running tail saves, an operator edits. Each edit is counted in the checkpoint, and a save under another
count is refused (`CheckpointMoved`), so that the tail reads again and starts where the operator put it.

A save appends one line to a journal (`checkpoints.journal`), however many checkpoints there are; saves
that fall due together share it. A history entry is added once a minute at most: with tokens of 4 kB a
history would otherwise be twenty times what a save writes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from checkpoints.checkpoint import Checkpoint, TailKey
from checkpoints.errors import CheckpointMoved, IntegrityError, StoreWriteError
from checkpoints.journal.journal import Journal
from checkpoints.journal.records import Key, decode_value
from checkpoints.seq import Seq

HISTORY_LENGTH = 20
HISTORY_SECONDS = 60.0

_NEVER_DUE = math.nan  # compares as less than any number of seconds after it
_UNREADABLE = (KeyError, TypeError, ValueError, OverflowError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """An earlier position of a tail.

    Attributes:
        seq: the position.
        saved_at: wall-clock seconds of the save.
        changes: how many changes were taken by then.
    """

    seq: Seq
    saved_at: float
    changes: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> HistoryEntry:
        """Return the entry of a checkpoint."""
        return cls(seq=checkpoint.seq, saved_at=checkpoint.saved_at, changes=checkpoint.changes)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> HistoryEntry:
        """Return the entry that `to_json` was called on.

        Raises:
            KeyError, TypeError: it is not an entry, or one of a newer format.
        """
        entry = cls(**value | {"seq": Seq.of(value["seq"])})
        if not isinstance(entry.saved_at, int | float) or not isinstance(entry.changes, int):
            raise TypeError(f"not a time and a number of changes: {entry.saved_at!r}, {entry.changes!r}")
        return entry

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return {"seq": self.seq.value, "saved_at": self.saved_at, "changes": self.changes}


class CheckpointStore:
    """The checkpoints of one state directory, owned by one process; any number may read.

    Damage stops only the tails whose checkpoints it may have changed: the damaged file is kept under another
    name when the owner opens the store, and a tail whose checkpoint is missing since is refused.

    Args:
        path: its folder, made if it is missing.
        readonly: read what is on disk now, also while another process owns it.

    Raises:
        StoreLocked: another process owns it; the message names its pid.
        IntegrityError: a newer pillowd wrote it; or it is damaged, and opened readonly or on a disk that
            refuses the copy. The message names the damage and the remedies.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False) -> None:
        self._journal = Journal(Path(path).expanduser(), readonly=readonly)
        self._recorded_at: dict[TailKey, float] = {}  # saved_at of the newest history entry, once looked up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, tail: TailKey) -> Checkpoint | None:
        """Return the last saved checkpoint; None when there never was one.

        Raises:
            IntegrityError: there is one that cannot be read.
        """
        entry = self._journal.get(_checkpoint_key(tail))
        if entry is None:
            self._refuse_lost(tail)
            return None
        try:
            return _decode(entry)
        except _UNREADABLE as error:
            raise IntegrityError(
                f"the checkpoint of {tail} in {self._journal.path} cannot be read: {error}. "
                "It may be of a newer pillowd. `pillowd checkpoint set` or `reset` replaces it."
            ) from error

    def save(self, tail: TailKey, checkpoint: Checkpoint) -> None:
        """Store a running tail's checkpoint; it is on disk when this returns.

        A history that cannot be read is left as it is: nothing depends on it, and the pillowd that wrote it
        can still read it.

        Raises:
            CheckpointMoved: the stored one has another count of edits.
            StoreWriteError: the disk refused. The one that was saved before is still on disk.
        """
        with self._journal.lock:
            stored = self.get(tail)
            edits = 0 if stored is None else stored.edits
            if edits != checkpoint.edits:
                raise CheckpointMoved(
                    f"the checkpoint of {tail} was edited: {edits} times, not {checkpoint.edits}"
                )
            self._put(tail, checkpoint, self._history_to_extend(tail, checkpoint))
        self._journal.sync()

    def edit(self, tail: TailKey, change: Callable[[Checkpoint | None], Checkpoint]) -> Checkpoint:
        """Store an operator's edit of a checkpoint, with the next count of edits.

        Args:
            tail: the tail.
            change: called with the stored checkpoint, or None where there is none that can be read; returns
                the new one. A history that cannot be read is replaced.

        Returns:
            The checkpoint as it was stored.

        Raises:
            StoreWriteError: the disk refused; nothing was changed.
        """
        with self._journal.lock:
            stored, edits = self._find_readable(tail)
            changed = change(stored)
            changed = replace(changed, edits=max(changed.edits, edits) + 1)
            before = {key: self._journal.get(key) for key in _keys(tail)}
            history = self._find_readable_history(tail)
            if stored is not None and (not history or history[0].seq != stored.seq):
                history = [HistoryEntry.of(stored), *history]
            self._put(tail, changed, history)
        try:
            self._journal.sync()
        except StoreWriteError:
            self._undo_edit(tail, changed, before)
            raise
        return changed

    def keys(self) -> list[TailKey]:
        """List the tails that have a checkpoint, in order of their names."""
        keys = self._journal.keys()
        return sorted(TailKey(*names) for kind, *names in keys if kind == "checkpoint")

    def history(self, tail: TailKey) -> list[HistoryEntry]:
        """List earlier positions, newest first: at most 20, a minute or more apart but for edits.

        Raises:
            IntegrityError: the history cannot be read.
        """
        entry = self._journal.get(_history_key(tail))
        if entry is None:
            return []
        try:
            return [HistoryEntry.from_json(each) for each in decode_value(entry)]
        except _UNREADABLE as error:
            raise IntegrityError(
                f"the history of {tail} in {self._journal.path} cannot be read: {error}. "
                "It may be of a newer pillowd. Saves go on, and leave it as it is; "
                "`pillowd checkpoint set`, `reset` or `rewind --beginning` begins another."
            ) from error

    def close(self) -> None:
        """Close the store; safe to call twice.

        Raises:
            StoreWriteError: the disk refused what is not on it yet. The store is still open.
        """
        self._journal.close()

    def _refuse_lost(self, tail: TailKey) -> None:
        for path in self._journal.damaged:
            raise IntegrityError(
                f"the checkpoint of {tail} cannot be read, if it had one: {path} is damaged. "
                "`pillowd checkpoint set` or `reset` makes another; "
                f"remove {path} once no pillow needs what is in it."
            )

    def _find_readable(self, tail: TailKey) -> tuple[Checkpoint | None, int]:
        """Return the stored checkpoint if it can be read, and its edits, which may be readable alone."""
        try:
            stored = self.get(tail)
        except IntegrityError:
            entry = self._journal.get(_checkpoint_key(tail))
            value = None if entry is None else decode_value(entry)
            edits = value.get("generation") if isinstance(value, dict) else None
            return None, edits if isinstance(edits, int) else 0
        return stored, stored.edits if stored else 0

    def _find_readable_history(self, tail: TailKey) -> list[HistoryEntry]:
        try:
            return self.history(tail)
        except IntegrityError:
            return []

    def _history_to_extend(self, tail: TailKey, checkpoint: Checkpoint) -> list[HistoryEntry] | None:
        """Return the history that an entry of this checkpoint is due in; None where none is due."""
        recorded_at = self._recorded_at.get(tail)
        # abs: a clock that was set back must not stop the history
        if recorded_at is not None and not abs(checkpoint.saved_at - recorded_at) >= HISTORY_SECONDS:
            return None
        try:
            history = self.history(tail)  # up to 80 kB: not read at each save
        except IntegrityError as error:
            _log.warning("%s", error)
            self._recorded_at[tail] = _NEVER_DUE
            return None
        if recorded_at is None and history:
            self._recorded_at[tail] = history[0].saved_at
            return self._history_to_extend(tail, checkpoint)
        return history

    def _put(self, tail: TailKey, checkpoint: Checkpoint, history: list[HistoryEntry] | None) -> None:
        """Store a checkpoint, and its entry before those of `history` unless that is None."""
        values: dict[Key, Any] = {_checkpoint_key(tail): checkpoint.to_json()}
        if history is not None:
            entries = [HistoryEntry.of(checkpoint), *history][:HISTORY_LENGTH]
            values[_history_key(tail)] = [entry.to_json() for entry in entries]
            self._recorded_at[tail] = checkpoint.saved_at
        self._journal.put(values)

    def _undo_edit(self, tail: TailKey, changed: Checkpoint, before: dict[Key, bytes | None]) -> None:
        """Take an edit back that is not on disk, unless something was saved after it."""
        with self._journal.lock:
            if self.get(tail) == changed:
                self._journal.restore(before)
                self._recorded_at.pop(tail, None)


@lru_cache(maxsize=1024)
def _decode(entry: bytes) -> Checkpoint:
    """Decode an entry. Every idle tail asks each few seconds whether an operator edited its checkpoint."""
    return Checkpoint.from_json(decode_value(entry))


def _checkpoint_key(tail: TailKey) -> Key:
    return ("checkpoint", tail.pillow, tail.source)


def _history_key(tail: TailKey) -> Key:
    return ("history", tail.pillow, tail.source)


def _keys(tail: TailKey) -> tuple[Key, Key]:
    return (_checkpoint_key(tail), _history_key(tail))
