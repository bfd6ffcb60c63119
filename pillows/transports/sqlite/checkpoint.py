"""The tail's row of `pillowd_checkpoint` in an SQLite file: its checkpoint, and who may write."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from checkpoints import Checkpoint, TailKey
from pillows.errors import FencedError
from pillows.transports.base import TargetState
from pillows.transports.sqlite.statements import Table


class CheckpointRow:
    """Reads and writes the row, in transactions of the caller.

    Args:
        key: of the tail.
        path: the file, for messages.
    """

    def __init__(self, key: TailKey, path: Path) -> None:
        self._key = key
        self._path = path
        self._fence = secrets.token_hex(8)

    def get_state(self, db: sqlite3.Connection, tables: Collection[Table]) -> TargetState:
        """Return what the file remembers of the tail."""
        found = db.execute(
            "SELECT epoch, checkpoint FROM pillowd_checkpoint WHERE pillow = ? AND source = ?",
            (self._key.pillow, self._key.source),
        ).fetchone()
        state = TargetState.from_row(found, empty=all(table.is_empty(db) for table in tables))
        if found is not None:
            return state
        return state.with_foreign_versions(table.get_greatest_version(db) for table in tables)

    def list_members(self, db: sqlite3.Connection) -> Iterator[tuple[TailKey, TargetState]]:
        """Return the state of each other source of the pillow: those of its databases, if it has several.

        They are read at once, and decoded one by one: all of them take much memory.
        """
        found = db.execute(
            "SELECT source, epoch, checkpoint FROM pillowd_checkpoint WHERE pillow = ? AND source <> ?",
            (self._key.pillow, self._key.source),
        ).fetchall()
        return (
            (TailKey(self._key.pillow, source), TargetState.from_row((epoch, text), empty=False))
            for source, epoch, text in found
        )

    def acquire(self, db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
        """Take the fence from its present owner and save the checkpoint."""
        db.execute(
            "INSERT INTO pillowd_checkpoint (pillow, source, fence, generation, epoch, seq, checkpoint)"
            " VALUES (?, ?, ?, 0, 0, '', '')"
            " ON CONFLICT (pillow, source) DO UPDATE SET fence = excluded.fence",
            (self._key.pillow, self._key.source, self._fence),
        )
        self.save(db, checkpoint)

    def check_fence(self, db: sqlite3.Connection) -> None:
        """Make sure that the fence is ours; it stays so until the end of the transaction.

        Raises:
            FencedError: another process has the fence, or it was never taken.
        """
        found = db.execute(
            "SELECT fence FROM pillowd_checkpoint WHERE pillow = ? AND source = ?",
            (self._key.pillow, self._key.source),
        ).fetchone()
        if found is None or found[0] != self._fence:
            raise FencedError(
                f"Another pillowd writes {self._key} to {self._path}.",
                remedy="run each pillow in one daemon only, then restart this pillow",
            )

    def save(self, db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
        """Save the checkpoint with the transaction. An epoch is never lowered."""
        db.execute(
            "UPDATE pillowd_checkpoint SET generation = ?, epoch = max(epoch, ?), seq = ?, checkpoint = ?"
            " WHERE pillow = ? AND source = ?",
            (
                checkpoint.edits,
                checkpoint.epoch,
                checkpoint.seq.json,
                msgspec.json.encode(checkpoint.to_json()).decode(),
                self._key.pillow,
                self._key.source,
            ),
        )

    def save_members(self, db: sqlite3.Connection, checkpoints: Mapping[TailKey, Checkpoint]) -> None:
        """Save the checkpoints of several databases with the transaction, which holds the pillow's fence.

        One with more edits is not overwritten: it was reset meanwhile.
        """
        db.executemany(
            "INSERT INTO pillowd_checkpoint AS c (pillow, source, fence, generation, epoch, seq, checkpoint)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (pillow, source) DO UPDATE SET fence = excluded.fence,"
            " generation = excluded.generation, epoch = max(c.epoch, excluded.epoch), seq = excluded.seq,"
            " checkpoint = excluded.checkpoint WHERE c.generation <= excluded.generation",
            [
                (
                    self._key.pillow,
                    tail.source,
                    self._fence,
                    each.edits,
                    each.epoch,
                    each.seq.json,
                    msgspec.json.encode(each.to_json()).decode(),
                )
                for tail, each in checkpoints.items()
            ],
        )
