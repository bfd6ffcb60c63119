"""Where the checkpoints are kept: one file per pillow and source, replaced whole and durably.

A running pillow saves, an operator edits; each edit raises the checkpoint's generation, and a save
under another generation is refused (`CheckpointMoved`), so that the pillow reads again and starts
from where the operator put it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from checkpoints.checkpoint import Checkpoint, TailKey
from checkpoints.directory import Directory
from checkpoints.errors import CheckpointMoved, IntegrityError, StoreClosed, StoreWriteError
from checkpoints.offhub import off_hub
from checkpoints.seq import Seq

HISTORY_LENGTH = 20
HISTORY_SECONDS = 60.0


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


class CheckpointStore:
    """The checkpoints of one state directory, owned by one process (any number may read)."""

    def __init__(self, path: str | Path, *, readonly: bool = False) -> None:
        self._path = Path(path)
        self._readonly = readonly
        self._directory: Directory | None = (
            Directory(self._path) if readonly else Directory.create(self._path)
        )
        self._guard = threading.RLock()
        if not readonly:
            self._directory.lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: TailKey) -> Checkpoint | None:
        """The last saved checkpoint; None when there never was one.

        Raises:
            IntegrityError: there is one that cannot be read.
        """
        record = self._read(key)
        return None if record is None else Checkpoint.from_json(record["checkpoint"])

    def save(self, key: TailKey, checkpoint: Checkpoint) -> None:
        """Keeps a running tail's checkpoint; it is on disk when this returns.

        Raises:
            CheckpointMoved: the stored one is of another generation (an operator's edit).
            StoreWriteError: the disk refused.
        """
        with self._guard:
            record = self._read(key)
            stored = 0 if record is None else record["checkpoint"]["generation"]
            if stored != checkpoint.generation:
                raise CheckpointMoved(f"the checkpoint of {key} was edited: generation {stored}")
            self._write(key, checkpoint, record)

    def edit(self, key: TailKey, change: Callable[[Checkpoint | None], Checkpoint]) -> Checkpoint:
        """An operator's edit: stores what `change` makes of the present one under a new generation.

        Returns:
            What was stored.

        Raises:
            StoreWriteError: the disk refused; nothing was changed.
        """
        with self._guard:
            record = self._read(key)
            present = None if record is None else Checkpoint.from_json(record["checkpoint"])
            changed = change(present)
            generation = max(changed.generation, present.generation if present else 0) + 1
            changed = replace(changed, generation=generation)
            self._write(key, changed, record)
        return changed

    def delete(self, key: TailKey) -> None:
        """Forgets a tail's checkpoint and its history."""
        with self._guard:
            directory = self._opened()
            directory.remove(_name(key))
            off_hub(directory.sync)

    def keys(self) -> list[TailKey]:
        """The tails that have a checkpoint."""
        directory = self._opened()
        records = [json.loads(directory.read(name)) for name in directory.names() if name.endswith(".json")]
        return sorted(TailKey(*record["key"]) for record in records)

    def history(self, key: TailKey) -> list[HistoryEntry]:
        """Where the tail was, newest first: at most 20 entries, a minute or more apart."""
        record = self._read(key) or {"history": []}
        return [HistoryEntry(**entry | {"seq": Seq.of(entry["seq"])}) for entry in record["history"]]

    def close(self) -> None:
        """Lets the directory go; safe to call twice."""
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def _opened(self) -> Directory:
        if self._directory is None:
            raise StoreClosed(f"{self._path} is closed")
        return self._directory

    def _read(self, key: TailKey) -> dict[str, Any] | None:
        try:
            text = self._opened().read(_name(key))
        except FileNotFoundError:
            return None
        try:
            record: dict[str, Any] = json.loads(text)
            if record["format"] != 1:
                raise IntegrityError(f"{self._path / _name(key)} has format {record['format']}; this is 1")
            Checkpoint.from_json(record["checkpoint"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{self._path / _name(key)} cannot be read: {error}") from error
        return record

    def _write(self, key: TailKey, checkpoint: Checkpoint, record: dict[str, Any] | None) -> None:
        history = (record or {"history": []})["history"]
        newest = HistoryEntry(seq=checkpoint.seq, saved_at=checkpoint.saved_at, changes=checkpoint.changes)
        if not history or checkpoint.saved_at - history[0]["saved_at"] >= HISTORY_SECONDS:
            history = [asdict(newest) | {"seq": checkpoint.seq.value}, *history][:HISTORY_LENGTH]
        text = json.dumps(
            {
                "format": 1,
                "key": [key.pillow, key.source],
                "checkpoint": checkpoint.to_json(),
                "history": history,
            }
        )
        try:
            off_hub(self._commit, _name(key), text.encode())
        except OSError as error:
            raise StoreWriteError(f"cannot write the checkpoint of {key}: {error}") from error

    def _commit(self, name: str, data: bytes) -> None:
        directory = self._opened()
        directory.replace(name, data)
        directory.sync()


def _name(key: TailKey) -> str:
    return f"{quote(key.pillow, safe='')}@{quote(key.source, safe='')}.json"
