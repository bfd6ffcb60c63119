"""The checkpoints of a state directory, and their history.

A running tail saves, an operator edits. The checkpoint counts its edits. A save with an outdated count is
refused (`CheckpointMoved`): the tail then reads the checkpoint again and continues from there.

A save appends one line to a journal (`checkpoints.journal`), however many checkpoints there are; saves
that fall due together share one line. A history entry is added once a minute at most: with tokens of 4 kB,
writing the history with every save would take twenty times as many bytes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checkpoints.checkpoint import Checkpoint, ConfigDigest, TailKey
from checkpoints.errors import CheckpointMoved, IntegrityError, StoreWriteError
from checkpoints.journal.journal import Journal
from checkpoints.journal.records import decode_value, encode_entry
from checkpoints.replica import Key, Replica
from checkpoints.seq import Seq

HISTORY_LENGTH = 20
HISTORY_SECONDS = 60.0

#: Fields that are not stored if they have their default: `Checkpoint.from_json` fills them in. A default must
#: never change.
_DEFAULTS = Checkpoint(seq=Seq.BEGINNING).to_json()
del _DEFAULTS["seq"], _DEFAULTS["digest"]

_NOTE = "note"  # in the JSON of a checkpoint; see `CheckpointStore.note`
_NEVER_DUE = math.nan  # compares as less than any number of seconds after it
_UNREADABLE = (KeyError, TypeError, ValueError, OverflowError)

_Digest: Any = msgspec.defstruct(
    "_Digest", [(name, str, "") for name in ConfigDigest.__struct_fields__], forbid_unknown_fields=True
)

#: A stored checkpoint of which only the edits are decoded; a field of a newer pillowd is refused.
_Edits: Any = msgspec.defstruct(
    "_Edits",
    [
        ("seq", str | int | list[Any]),
        ("digest", _Digest),
        ("generation", int, 0),
        *((name, msgspec.Raw, None) for name in (_NOTE, *_DEFAULTS) if name != "generation"),
    ],
    forbid_unknown_fields=True,
)
_decode_edits = msgspec.json.Decoder(tuple[str, str, str, _Edits]).decode

_log = logging.getLogger(__name__)


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """An earlier position of a tail.

    Attributes:
        seq: the position.
        saved_at: wall-clock seconds of the save.
        changes: how many changes had been processed.
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
        """Return the entry in the JSON values that `to_json` returned.

        Raises:
            KeyError, TypeError: the value is not an entry, or has a newer format.
        """
        entry = cls(**value | {"seq": Seq.of(value["seq"])})
        if not isinstance(entry.saved_at, int | float) or not isinstance(entry.changes, int):
            raise TypeError(f"not a time and a number of changes: {entry.saved_at!r}, {entry.changes!r}")
        return entry

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return {"seq": self.seq.value, "saved_at": self.saved_at, "changes": self.changes}


class CheckpointStore:
    """The checkpoints of one state directory. One process writes; any number of processes may read.

    Damage stops only the tails whose checkpoints may be affected. When the writer opens a damaged store, it
    keeps the damaged file under another name; `get` then raises for every tail whose checkpoint is missing.

    Args:
        path: the store's folder; created if it is missing.
        readonly: read the present content of the disk, also while another process writes.

    Raises:
        StoreLocked: another process has it open for writing; the message names its pid.
        IntegrityError: a newer pillowd wrote it; or it is damaged, and it was opened readonly or the copy
            of the damaged file failed. The message names the damage and the remedies.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False) -> None:
        self._journal = Journal(Path(path).expanduser(), readonly=readonly)
        self._recorded_at: dict[TailKey, float] = {}  # saved_at of the newest history entry, once looked up
        self._on_edit: dict[TailKey, Callable[[], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def attach(self, replica: Replica) -> None:
        """Begin with the replica's checkpoints, and save into both from now on; see `Journal.attach`.

        Raises:
            StoreError: the replica cannot be read, or a write failed.
        """
        self._journal.attach(replica)
        self._recorded_at.clear()

    def get(self, tail: TailKey) -> Checkpoint | None:
        """Return the last saved checkpoint; None if the tail never had one.

        Raises:
            IntegrityError: the stored checkpoint cannot be read.
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
                "A newer pillowd may have written it. "
                f"Replace it with `pillowd checkpoint reset {tail}`."
            ) from error

    def save(
        self, tail: TailKey, checkpoint: Checkpoint, *, flush: bool = True, keep_history: bool = True
    ) -> None:
        """Store a running tail's checkpoint; it is on disk when this returns.

        A history that cannot be read is not changed: nothing depends on it, and the pillowd that wrote it
        can still read it.

        Args:
            tail: the tail.
            checkpoint: its checkpoint.
            flush: False leaves the write to `flush`, or to the next save of any tail.
            keep_history: whether it may become an entry of the tail's history.

        Raises:
            CheckpointMoved: the stored checkpoint has another number of edits.
            StoreWriteError: the write failed. The previous checkpoint is still on disk.
        """
        with self._journal.lock:
            edits = self._find_edits(tail)
            if edits != checkpoint.edits:
                raise CheckpointMoved(
                    f"the checkpoint of {tail} was edited: {edits} times, not {checkpoint.edits}"
                )
            self._put(tail, checkpoint, self._history_to_extend(tail, checkpoint) if keep_history else None)
        if flush:
            self.flush()

    def flush(self) -> None:
        """Wait until everything that was stored before is on disk.

        Raises:
            StoreWriteError: the write failed. The stored values are still in memory: flush again later.
        """
        self._journal.sync()

    def edit(self, tail: TailKey, change: Callable[[Checkpoint | None], Checkpoint]) -> Checkpoint:
        """Store an operator's edit of a checkpoint, and count it. Replace an unreadable history.

        Args:
            tail: the tail.
            change: called with the stored checkpoint, or with None if there is none or it cannot be read;
                returns the new one.

        Returns:
            The stored checkpoint.

        Raises:
            StoreWriteError: the write failed; nothing was changed.
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
        if tail in self._on_edit:
            self._on_edit[tail]()
        return changed

    @contextmanager
    def watching(self, tail: TailKey, on_edit: Callable[[], None]) -> Iterator[None]:
        """Call `on_edit` inside the block after each edit of a tail's checkpoint. A tail has one watcher."""
        self._on_edit[tail] = on_edit
        try:
            yield
        finally:
            del self._on_edit[tail]

    def exchange(self, live: TailKey, *, shadow: TailKey, parked: TailKey) -> None:
        """Give the checkpoint of `live` to `parked` and that of `shadow` to `live`, with their histories.

        Both in one commit. Without a checkpoint of `shadow` nothing is done: then that was done before. No
        edit is counted: the copies in targets change hands at the same time.

        Raises:
            StoreWriteError: the write failed. Call again, or open the store again.
        """
        with self._journal.lock:
            if self._journal.get(_checkpoint_key(shadow)) is not None:
                moved = {live: parked, shadow: live}
                entries: dict[Key, Any] = dict.fromkeys(_keys(shadow))
                for before, after in moved.items():
                    for old, new in zip(_keys(before), _keys(after), strict=True):
                        entry = self._journal.get(old)
                        entries[new] = None if entry is None else decode_value(entry)
                self._journal.restore(
                    {k: None if value is None else encode_entry(k, value) for k, value in entries.items()}
                )
                for tail in (live, shadow, parked):
                    self._recorded_at.pop(tail, None)
        self._journal.sync()

    def forget(self, tail: TailKey) -> None:
        """Remove the checkpoint and the history of a tail.

        Raises:
            StoreWriteError: the write failed. Call again, or open the store again.
        """
        with self._journal.lock:
            if any(self._journal.get(key) is not None for key in _keys(tail)):
                self._journal.restore(dict.fromkeys(_keys(tail)))
                self._recorded_at.pop(tail, None)
        self._journal.sync()

    def note(self, tail: TailKey, value: Any) -> None:
        """Keep a JSON value with a checkpoint, which must exist, until that is saved or edited again.

        The next save of any checkpoint writes it; a crash before loses it.
        """
        key = _checkpoint_key(tail)
        with self._journal.lock:
            entry = self._journal.get(key)
            if entry is not None:
                self._journal.put({key: decode_value(entry) | {_NOTE: value}})

    def get_note(self, tail: TailKey) -> Any:
        """Return the value stored with a checkpoint; None if there is none, or if it can't be read."""
        entry = self._journal.get(_checkpoint_key(tail))
        value = None if entry is None else decode_value(entry)
        return value.get(_NOTE) if isinstance(value, dict) else None

    def keys(self) -> list[TailKey]:
        """List the tails that have a checkpoint, in order of their names."""
        keys = self._journal.keys()
        return sorted(TailKey(*names) for kind, *names in keys if kind == "checkpoint")

    def history(self, tail: TailKey) -> list[HistoryEntry]:
        """List at most 20 earlier positions, newest first: one a minute, and one for each edit.

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
                "A newer pillowd may have written it. Saves continue without a history; "
                f"an edit, such as `pillowd checkpoint set {tail} SEQ`, begins a new one."
            ) from error

    def close(self) -> None:
        """Close the store; safe to call twice.

        Raises:
            StoreWriteError: pending writes failed. The store is still open.
        """
        self._journal.close()

    def _refuse_lost(self, tail: TailKey) -> None:
        for path in self._journal.damaged:
            raise IntegrityError(
                f"{tail} may have had a checkpoint that cannot be read: {path} is damaged. "
                f"Create a new one with `pillowd checkpoint reset {tail}`; "
                f"remove {path} once no pillow needs its content."
            )

    def _find_edits(self, tail: TailKey) -> int:
        """Return the number of edits of the stored checkpoint; decode nothing else: each save needs it."""
        entry = self._journal.get(_checkpoint_key(tail))
        if entry is not None:
            try:
                return int(_decode_edits(entry)[-1].generation)
            except msgspec.DecodeError:
                pass  # `get` says why
        stored = self.get(tail)
        return stored.edits if stored else 0

    def _find_readable(self, tail: TailKey) -> tuple[Checkpoint | None, int]:
        """Return the stored checkpoint and its edits; None and its edits if only those can be read."""
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
        """Return the history to which this checkpoint must be added; None if no entry is due."""
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
        """Store a checkpoint, and, if a history is given, that history with the checkpoint's entry first."""
        key = _checkpoint_key(tail)
        # Its fields are JSON for certain, so this takes a tenth of the time of `encode_entry`.
        entries = {key: msgspec.json.encode([*key, _to_stored(checkpoint)])}
        if history is not None:
            key = _history_key(tail)
            kept = [HistoryEntry.of(checkpoint), *history][:HISTORY_LENGTH]
            entries[key] = encode_entry(key, [each.to_json() for each in kept])
            self._recorded_at[tail] = checkpoint.saved_at
        self._journal.restore(entries)

    def _undo_edit(self, tail: TailKey, changed: Checkpoint, before: dict[Key, bytes | None]) -> None:
        """Undo an edit whose write failed, unless another save has replaced it."""
        with self._journal.lock:
            if self.get(tail) == changed:
                self._journal.restore(before)
                self._recorded_at.pop(tail, None)


@lru_cache(maxsize=1024)
def _decode(entry: bytes) -> Checkpoint:
    """Decode an entry. Cached: each idle tail looks for edits of its checkpoint every few seconds."""
    value = msgspec.json.decode(entry)[-1]  # in a quarter of the time of `decode_value`
    if isinstance(value, dict):
        value.pop(_NOTE, None)
    return Checkpoint.from_json(value)


def _to_stored(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the JSON values of a checkpoint without those that are as in `_DEFAULTS`.

    A store may hold ten thousand, all of them in memory.
    """
    fields = checkpoint.to_json().items()
    return {name: value for name, value in fields if name not in _DEFAULTS or value != _DEFAULTS[name]}


def _checkpoint_key(tail: TailKey) -> Key:
    return ("checkpoint", tail.pillow, tail.source)


def _history_key(tail: TailKey) -> Key:
    return ("history", tail.pillow, tail.source)


def _keys(tail: TailKey) -> tuple[Key, Key]:
    return (_checkpoint_key(tail), _history_key(tail))
