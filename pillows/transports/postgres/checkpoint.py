"""The tail's row of `pillowd_checkpoint` in PostgreSQL: its checkpoint, and who may write."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import psycopg
from msgspec.structs import replace
from psycopg import sql

from checkpoints import Checkpoint, TailKey
from pillows.errors import FencedError, StateLostError
from pillows.transports.base import TargetState
from pillows.transports.postgres.schema import table_exists
from pillows.transports.postgres.statements import Name, Table, fetch_value, literal

#: Class of the advisory locks by which the parts of a pillow take turns ("part" as a number).
PART_LOCK = int.from_bytes(b"part")

#: Of a pillow and all its parts; no name of a database holds a `#` (CouchDB docs, "/{db}").
_FIND_EPOCH = (
    "select max(epoch) from {} where pillow = %(pillow)s"
    " and (source = %(whole)s or left(source, length(%(whole)s) + 1) = %(whole)s || '#')"
)
#: A process that stands still in the middle of its turn must not hold up the other parts for long.
_TAKE_TURN = (
    "select set_config('idle_in_transaction_session_timeout', '10s', true),"
    " pg_advisory_xact_lock({lock}, hashtext({pillow})); "
)
_FENCE_WHOLE = "update {} set fence = '' where pillow = %(pillow)s and source = %(whole)s"
_FENCE_PARTS = (
    "update {} set fence = '' where pillow = %(pillow)s"
    " and left(source, length(%(whole)s) + 1) = %(whole)s || '#'"
)


class CheckpointRow:
    """Reads and writes the row, in transactions of the caller.

    Args:
        key: of the pillow's tail.
        schema: of `pillowd_checkpoint`.
        part: the tail of a part of the pillow, whose row it is; the row of the whole unless given.
    """

    def __init__(self, key: TailKey, schema: str, part: TailKey | None = None) -> None:
        self._whole = key.source
        self._is_part = part is not None
        self._key = part or key
        self._table_path = (schema, "pillowd_checkpoint")
        self._table = Name(*self._table_path)
        self._fence = secrets.token_hex(8)
        self._composed: dict[str, bytes] = {}

    def find_state(self, cursor: psycopg.Cursor) -> TargetState:
        """Return what the row says; an empty state if it or its table is missing."""
        schema, name = self._table_path
        return self.get_state(cursor, ()) if table_exists(cursor, schema, name) else TargetState()

    def get_state(self, cursor: psycopg.Cursor, tables: Sequence[Table]) -> TargetState:
        """Return what the target remembers of the tail."""
        found = self._execute(
            cursor,
            "select epoch, checkpoint::text from {} where pillow = %(pillow)s and source = %(source)s",
        ).fetchone()
        empty = not self._is_part and all(fetch_value(cursor, table.is_empty_query) for table in tables)
        state = TargetState.from_row(found, empty=empty)
        # Under a lower epoch than that of another part, or of the whole, writes would be refused.
        ((epoch,),) = self._execute(cursor, _FIND_EPOCH).fetchall()
        if epoch is not None:
            return replace(state, epoch=epoch)
        state = state.with_foreign_versions(
            fetch_value(cursor, each.highest_version_query) for each in tables
        )
        if self._is_part and state.foreign_epoch is not None:
            raise StateLostError(
                f"The tables of {self._key.pillow} hold rows, but none that it wrote.",
                remedy="give it tables of its own; or run it with `coordination: {type: none}` first, where "
                f"`pillowd checkpoint reset {self._key.pillow}` takes them over",
            )
        return state

    def acquire(self, cursor: psycopg.Cursor, checkpoint: Checkpoint) -> None:
        """Take the fence from its present owner and save the checkpoint. An epoch is never lowered.

        A start without partitions also takes the fence of every partition's tail, and the start of a
        partition's tail that of the unpartitioned one. Both lock the row of the unpartitioned tail first, so
        that they cannot deadlock.
        """
        if self._is_part:
            self._execute(cursor, _FENCE_WHOLE)
        self._execute(
            cursor,
            "insert into {} as c (pillow, source, generation, epoch, fence, seq, checkpoint, saved_at)"
            " values (%(pillow)s, %(source)s, %(generation)s, %(epoch)s, %(fence)s, %(seq)s, %(json)s, now())"
            " on conflict (pillow, source) do update set generation = excluded.generation,"
            " epoch = greatest(c.epoch, excluded.epoch), fence = excluded.fence, seq = excluded.seq,"
            " checkpoint = excluded.checkpoint, saved_at = excluded.saved_at",
            checkpoint,
        )
        if not self._is_part:
            self._execute(cursor, _FENCE_PARTS)

    @cached_property
    def lock_query(self) -> bytes:
        """Locks the fence until the end of the transaction; `require_fence` then checks the result.

        Parts take turns: a document that has changed its part may be in two transactions, and what one has
        read must stay valid until it commits. Without parameters, so that it is sent with `begin`.
        """
        turn = _TAKE_TURN if self._is_part else ""
        fence = "select from {table} where pillow = {pillow} and source = {source} and fence = {fence}"
        locking = sql.SQL(f"{turn}{fence} for no key update").format(
            table=self._table,
            lock=sql.Literal(PART_LOCK),
            pillow=literal(self._key.pillow),
            source=literal(self._key.source),
            fence=literal(self._fence),
        )
        return locking.as_bytes().replace(b"%%", b"%")

    def require_fence(self, cursor: psycopg.Cursor) -> None:
        """Make sure that `lock_query` found the fence.

        Raises:
            FencedError: another process has the fence, or it was never taken.
        """
        self._require_row(cursor.rowcount)

    def save(self, cursor: psycopg.Cursor, checkpoint: Checkpoint) -> None:
        """Save the checkpoint with the transaction.

        Raises:
            FencedError: another process has the fence.
        """
        saved = self._execute(
            cursor,
            "update {} set generation = %(generation)s, epoch = greatest(epoch, %(epoch)s), seq = %(seq)s,"
            " checkpoint = %(json)s, saved_at = now()"
            " where pillow = %(pillow)s and source = %(source)s and fence = %(fence)s",
            checkpoint,
        )
        self._require_row(saved.rowcount)

    def list_members(self, cursor: psycopg.Cursor) -> Iterator[tuple[TailKey, TargetState]]:
        """Yield the state of each other source of the pillow: those of its databases, if it has several."""
        self._execute(
            cursor,
            "select source, epoch, checkpoint::text from {}"
            " where pillow = %(pillow)s and source <> %(source)s",
        )
        for source, epoch, text in cursor:
            yield TailKey(self._key.pillow, source), TargetState.from_row((epoch, text), empty=False)

    def save_members(self, cursor: psycopg.Cursor, checkpoints: Mapping[TailKey, Checkpoint]) -> None:
        """Save the checkpoints of several databases with the transaction, which holds the pillow's fence.

        One with more edits is not overwritten: it was reset meanwhile. One statement, however many they are.
        """
        self._execute(
            cursor,
            "insert into {} as c (pillow, source, generation, epoch, fence, seq, checkpoint, saved_at)"
            " select %(pillow)s, source, generation, epoch, %(fence)s, seq, checkpoint, now()"
            " from json_to_recordset(%(members)s) as m"
            " (source text, generation bigint, epoch bigint, seq text, checkpoint json)"
            " on conflict (pillow, source) do update set generation = excluded.generation,"
            " epoch = greatest(c.epoch, excluded.epoch), fence = excluded.fence, seq = excluded.seq,"
            " checkpoint = excluded.checkpoint, saved_at = excluded.saved_at"
            " where c.generation <= excluded.generation",
            members=[
                {"source": tail.source} | _to_columns(each) | {"checkpoint": each.to_json()}
                for tail, each in checkpoints.items()
            ],
        )

    def _require_row(self, found: int) -> None:
        if found != 1:
            raise FencedError(
                f"Another pillowd has acquired {self._key} in PostgreSQL.",
                remedy="run each pillow in one daemon only, then restart this pillow",
            )

    def _execute(
        self,
        cursor: psycopg.Cursor,
        statement: str,
        checkpoint: Checkpoint | None = None,
        members: Sequence[Mapping[str, Any]] = (),
    ) -> psycopg.Cursor:
        parameters: dict[str, Any] = {
            "pillow": self._key.pillow,
            "source": self._key.source,
            "whole": self._whole,
            "fence": self._fence,
        }
        if members:
            parameters["members"] = msgspec.json.encode(members).decode()
        if checkpoint is not None:
            parameters |= _to_columns(checkpoint)
            parameters["json"] = msgspec.json.encode(checkpoint.to_json()).decode()
        composed = self._composed.get(statement)
        if composed is None:
            composed = self._composed[statement] = sql.SQL(statement).format(self._table).as_bytes()
        return cursor.execute(composed, parameters)


def _to_columns(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"generation": checkpoint.edits, "epoch": checkpoint.epoch, "seq": str(checkpoint.seq)}
