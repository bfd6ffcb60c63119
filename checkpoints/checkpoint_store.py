"""Where the checkpoints are kept: a POD with a file for each pillow and source.

A running pillow saves, an operator edits; each edit counts up the checkpoint's edits, and a save
    with another count is refused (`CheckpointMoved`), so that the pillow reads again and starts
from where the operator put it.

Saves that fall due together are one commit. The history stands in a file of its own, which is written
once a minute at most: with tokens of 4 kB it would otherwise be twenty times what a save writes.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from checkpoints.checkpoint import Checkpoint, TailKey
from checkpoints.errors import CheckpointMoved, IntegrityError, NewerFormat, StoreWriteError
from checkpoints.files.blocking import run_blocking
from checkpoints.pod.codec import Key
from checkpoints.pod.engine import Settings
from checkpoints.pod.hooks import Rules
from checkpoints.pod.pod import POD
from checkpoints.pod.quarantine import damaged, finish, set_aside
from checkpoints.seq import Seq

HISTORY_LENGTH = 20
HISTORY_SECONDS = 60.0

_NEVER_DUE = math.nan  # no time is so many seconds after it
_UNREADABLE = (KeyError, TypeError, ValueError, OverflowError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Where a tail was at some time.

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
        """The entry of a checkpoint."""
        return cls(seq=checkpoint.seq, saved_at=checkpoint.saved_at, changes=checkpoint.changes)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> HistoryEntry:
        """The entry that `to_json` gave.

        Raises:
            KeyError, TypeError: it is none, or one of a newer format.
        """
        entry = cls(**value | {"seq": Seq.of(value["seq"])})
        if not isinstance(entry.saved_at, int | float) or not isinstance(entry.changes, int):
            raise TypeError(f"not when, and after how many changes: {entry.saved_at!r}, {entry.changes!r}")
        return entry

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return {"seq": self.seq.value, "saved_at": self.saved_at, "changes": self.changes}


@lru_cache(maxsize=256)
def _decoded(text: str) -> Checkpoint:
    """What a stored text says. Every idle tail looks each few seconds whether an operator edited it."""
    return Checkpoint.from_json(json.loads(text))


class CheckpointStore:
    """The checkpoints of one state directory, owned by one process; any number may read.

    Files that cannot be read are set aside when the owner opens it (`checkpoints.pod.quarantine`): a tail
    whose checkpoint is missing then is refused, all others go on.

    Args:
        path: its folder, made if it is missing.
        readonly: read what is on disk now, also while another process owns it.

    Raises:
        StoreLocked: another process owns it; the message names its pid.
        IntegrityError: a newer pillowd has written it; or what is on disk is not whole, and it is
            opened readonly or cannot be moved. The message says what and the remedies.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False) -> None:
        self._pod = _opened(Path(path).expanduser(), readonly=readonly)
        self._damaged = damaged(self._pod.path)
        self._recorded: dict[TailKey, float] = {}  # saved_at of the newest history entry, once looked up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: TailKey) -> Checkpoint | None:
        """The last saved checkpoint; None when there never was one.

        Raises:
            IntegrityError: there is one that cannot be read.
        """
        try:
            text = self._pod.text(_checkpoint(key))
        except KeyError:
            self._refuse_lost(key)
            return None
        try:
            return _decoded(text)
        except _UNREADABLE as error:
            raise IntegrityError(
                f"the checkpoint of {key} in {self._pod.path} cannot be read: {error}. "
                "It may be of a newer pillowd. `pillowd checkpoint set` or `reset` replaces it."
            ) from error

    def save(self, key: TailKey, checkpoint: Checkpoint) -> None:
        """Keeps a running tail's checkpoint; it is on disk when this returns.

        A history that cannot be read is left as it is: nothing depends on it, and whoever wrote it can
        still read it.

        Raises:
            CheckpointMoved: the stored one is of another count of edits (an operator's edit).
            StoreWriteError: the disk refused. What was saved before is still on disk.
        """
        with self._pod.together():
            present = self.get(key)
            edits = 0 if present is None else present.edits
            if edits != checkpoint.edits:
                raise CheckpointMoved(
                    f"the checkpoint of {key} was edited: {edits} times, not {checkpoint.edits}"
                )
            keys = self._put(key, checkpoint)
        self._pod.sync_key(*keys)

    def edit(self, key: TailKey, change: Callable[[Checkpoint | None], Checkpoint]) -> Checkpoint:
        """An operator's edit: stores what `change` makes of the present one with the next count of edits.

        Where the present one cannot be read, `change` gets None. A history that cannot be read is replaced.

        Returns:
            What was stored.

        Raises:
            StoreWriteError: the disk refused; nothing was changed.
        """
        with self._pod.together():
            present, edits = self._readable(key)
            changed = change(present)
            changed = replace(changed, edits=max(changed.edits, edits) + 1)
            before = {part: self._pod[part] for part in _parts(key) if part in self._pod}
            keys = self._put(key, changed, *([present] if present else []), edited=True)
        try:
            self._pod.sync_key(*keys)
        except StoreWriteError:
            self._restore(key, changed, before)
            raise
        return changed

    def delete(self, key: TailKey) -> None:
        """Forgets a tail's checkpoint and its history.

        Raises:
            StoreWriteError: the disk refused; they are forgotten when it takes the next write.
        """
        with self._pod.together():
            for part in _parts(key):
                self._pod.pop(part, None)
            self._recorded.pop(key, None)
        self._pod.sync()

    def keys(self) -> list[TailKey]:
        """The tails that have a checkpoint, in order of their names."""
        return sorted(TailKey(pillow, source) for kind, pillow, source in self._pod if kind == "checkpoint")

    def history(self, key: TailKey) -> list[HistoryEntry]:
        """Where the tail was, newest first: at most 20 entries, a minute or more apart but for edits.

        Raises:
            IntegrityError: it cannot be read.
        """
        entries = self._pod.get(_history(key), [])
        try:
            return [HistoryEntry.from_json(entry) for entry in entries]
        except _UNREADABLE as error:
            raise IntegrityError(
                f"the history of {key} in {self._pod.path} cannot be read: {error}. "
                "It may be of a newer pillowd. Its saves go on, and leave it as it is; "
                "`pillowd checkpoint set`, `reset` or `rewind --beginning` begins another."
            ) from error

    def close(self) -> None:
        """Lets the store go; safe to call twice."""
        self._pod.close()

    def _refuse_lost(self, key: TailKey) -> None:
        for store in self._damaged:
            if _checkpoint(key) not in store.keys:
                raise IntegrityError(
                    f"the checkpoint of {key} cannot be read, if it had one: {store}. "
                    "`pillowd checkpoint set` or `reset` makes another; "
                    f"remove {store.path} once no pillow needs what is in it."
                )

    def _readable(self, key: TailKey) -> tuple[Checkpoint | None, int]:
        """The present checkpoint, if it can be read, and its count of edits, which may be readable alone."""
        try:
            present = self.get(key)
        except IntegrityError:
            stored = self._pod.get(_checkpoint(key))
            edits = stored.get("generation") if isinstance(stored, dict) else None
            return None, edits if isinstance(edits, int) else 0
        return present, present.edits if present else 0

    def _put(
        self, key: TailKey, checkpoint: Checkpoint, *replaced: Checkpoint, edited: bool = False
    ) -> list[Key]:
        """Puts a checkpoint, and a history entry if one is due. Returns what is to be synced."""
        self._pod[_checkpoint(key)] = checkpoint.to_json()
        if not edited and not self._is_due(key, checkpoint):
            return [_checkpoint(key)]
        history = self._past(key, edited=edited)
        if history is None:
            return [_checkpoint(key)]
        unrecorded = [each for each in replaced if not history or history[0].seq != each.seq]
        entries = [*map(HistoryEntry.of, [checkpoint, *unrecorded]), *history]
        self._pod[_history(key)] = [entry.to_json() for entry in entries[:HISTORY_LENGTH]]
        self._recorded[key] = checkpoint.saved_at
        return [_checkpoint(key), _history(key)]

    def _is_due(self, key: TailKey, checkpoint: Checkpoint) -> bool:
        """Whether a history entry is; the history itself, up to 80 kB, is read once."""
        if key not in self._recorded:
            history = self._past(key, edited=False)
            if history == []:
                return True
            if history:
                self._recorded[key] = history[0].saved_at
        # abs: a clock that was set back must not stop the history
        return abs(checkpoint.saved_at - self._recorded[key]) >= HISTORY_SECONDS

    def _past(self, key: TailKey, *, edited: bool) -> list[HistoryEntry] | None:
        """The history that new entries are put before; None where it must stay as it is."""
        try:
            return self.history(key)
        except IntegrityError as error:
            if edited:
                return []
            _log.warning("%s", error)
            self._recorded[key] = _NEVER_DUE
            return None

    def _restore(self, key: TailKey, changed: Checkpoint, before: dict[Any, Any]) -> None:
        """Takes an edit back that is not on disk, unless somebody built on it."""
        with self._pod.together():
            if self._pod.get(_checkpoint(key)) != changed.to_json():
                return
            for part in _parts(key):
                self._pod.pop(part, None)
            self._pod.update(before)
            self._recorded.pop(key, None)


def _opened(path: Path, *, readonly: bool) -> _Entries:
    if readonly:
        return _Entries(path, readonly=True)
    run_blocking(finish, path)
    try:
        return _Entries(path, readonly=False)
    except IntegrityError as error:
        try:
            store = run_blocking(set_aside, path)
        except (NewerFormat, OSError):
            raise error from None
        _log.error("%s: what can be read of it goes on; it was set aside", store)
        return _Entries(path, readonly=False)


class _CheckpointRules(Rules):
    kind = "checkpoints"


class _Entries(POD):
    """Each entry in a file of its own, written when it is told to."""

    def __init__(self, path: str | Path, *, readonly: bool) -> None:
        settings = Settings(file_size=1, sync_at=None, sync_interval=None, readonly=readonly)
        self._open(path, settings, _CheckpointRules(), close_at_exit=False)


def _checkpoint(key: TailKey) -> Key:
    return ("checkpoint", key.pillow, key.source)


def _history(key: TailKey) -> Key:
    return ("history", key.pillow, key.source)


def _parts(key: TailKey) -> tuple[Key, Key]:
    return (_checkpoint(key), _history(key))
