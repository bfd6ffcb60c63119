"""Writes into PostgreSQL: mapped columns or whole documents, rows and checkpoint in one transaction.

A batch is one transaction: it takes the fence, copies the rows (straight into the tables in a first
pass, otherwise by way of a staging table), refuses what is stored newer, and saves the checkpoint.
So after any crash the rows are those of the checkpoint: each change is applied effectively once.

Because of that, `synchronous_commit = off` would lose nothing where PostgreSQL is the only transport.
It stays on all the same: beside another transport it would, and one flush a batch is not worth it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import psycopg
from psycopg import sql

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError, FencedError, PermanentError
from pillows.models import VERSION_BITS, Batch, WriteResult
from pillows.options import Options, OutputOptions
from pillows.transports.base import KeyedTransport, Stored, TargetState
from pillows.transports.common.mirroring import MirrorSupport
from pillows.transports.postgres.encoder import restored, storable
from pillows.transports.postgres.mirror import PostgresMirror
from pillows.transports.postgres.misfit_probe import create_probes
from pillows.transports.postgres.options import PostgresConnection, PostgresOutput
from pillows.transports.postgres.schema import create_stages, ensure, missing, shown, there
from pillows.transports.postgres.session import Session
from pillows.transports.postgres.statements import Name, Table
from pillows.transports.postgres.writer import BatchWriter, encoded

#: Documents that one transaction of a sweep looks at: some tenths of a second.
SWEEP_PAGE = 10_000
#: Seconds between two looks for write versions of documents that were deleted long ago.
FORGET_SECONDS = 3600.0

_WHERE_AM_I = """
    select current_setting('server_version'), current_database(), current_user,
        pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool
"""


class PostgresTransport(KeyedTransport):
    """Keeps tables of a PostgreSQL database in step; see the module."""

    TYPE: ClassVar[str] = "postgres"
    Connection: ClassVar[type[Options]] = PostgresConnection
    Output: ClassVar[type[OutputOptions]] = PostgresOutput
    mirror: ClassVar[MirrorSupport | None] = PostgresMirror()
    transactional: ClassVar[bool] = True
    verifiable: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: PostgresConnection,
        outputs: Mapping[str, PostgresOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._tables = self._new_tables()
        self._checkpoint = _Checkpoints(key, connection.schema_)
        self._opened = False
        self._claimed = False
        self._forgot_at: float | None = None
        self._session = Session(
            connection,
            application=f"pillowd {key}",
            prepare=self._prepare,
        )

    def check(self) -> str:
        """Connects and compares the tables with the configuration; see `Transport.check`."""
        session = Session(self.connection, application=f"pillowd {self.key}", prepare=lambda _: None)
        with closing(session), session.transaction() as cursor:
            version, database, user, standby = cursor.execute(_WHERE_AM_I).fetchall()[0]
            if standby:
                raise ConfigError(f"The server of {self.name} is a standby.", remedy="connect to the primary")
            statements = missing(cursor, self._tables, self.connection.schema_)
        start = (
            f"a start will run: {'; '.join(map(shown, statements))}" if statements else "the tables are there"
        )
        return f"PostgreSQL {version}, database {database}, as {user}; {start}"

    def preview(self, batch: Batch) -> str:
        """What is copied into each table, and which documents lose their rows there."""
        documents, dead = encoded(batch, self._tables)
        if dead:
            raise PermanentError("; ".join(f"{id}: {why}" for id, why in dead.items()))
        texts = []
        for number, table in enumerate(self._tables):
            rows = b"".join(line for one in documents for line in one.lines[number])
            if rows:
                way = f"in a first pass; later into pg_temp.{table.stage}, from where what is newer is moved"
                texts.append(f"-- {way}\n{table.copy_direct.decode()};\n{rows.decode()}\\.\n")
            texts += [
                f"-- {table.path}: the rows of {one.document.id!r} go\n"
                for one in documents
                if not one.lines[number]
            ]
        return "".join(texts)

    def open(self) -> TargetState:
        """Connects, creates and checks the tables; see `Transport.open`."""
        self._session.close()
        self._tables = self._new_tables()
        self._opened = False
        with self._session.transaction() as cursor:
            absent = [table.output for table in self._tables if not there(cursor, table.schema, table.name)]
            known = self._checkpoint.known(cursor) if absent else TargetState()
            if (missing := self.find_missing_outputs(absent, known.checkpoint)) or known.unreadable:
                return replace(known, empty=False, missing_outputs=missing)
            self._ensure(cursor)
            standing = self._checkpoint.standing(cursor, self._tables)
        self._opened = True
        return standing

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Stores the checkpoint and takes the fence; see `Transport.acquire`."""
        with self._session.transaction() as cursor:
            if self._claimed:
                self._checkpoint.hold(cursor)
            if not self._opened:
                self._ensure(cursor)
            self._checkpoint.acquire(cursor, checkpoint)
            for table in self._tables:
                table.tombstoned = _is(cursor, table.has_guards)
        self._opened = self._claimed = True
        self._forget()

    def write(self, batch: Batch) -> WriteResult:
        """Writes a batch and its checkpoint in one transaction; see `Transport.write`."""
        documents, dead = encoded(batch, self._tables)
        with self._fenced() as cursor:
            writer = BatchWriter(
                cursor, self._tables, first_pass=batch.first_pass, documents=documents, dead=dead
            )
            result = writer.write()
            if batch.checkpoint is not None and writer.clean:
                self._checkpoint.save(cursor, batch.checkpoint)
        self._forget()
        return result

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Removes the rows of lower epochs; see `Transport.finish_pass`."""
        stored_as = [storable(id) for id in kept]
        removed = sum(self._sweep(table, epoch << VERSION_BITS, stored_as) for table in self._tables)
        self._forget(floor=epoch << VERSION_BITS)
        return removed

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """The documents of a table, page by page in the order of its own index; see `Transport.stored`."""
        session = Session(self.connection, application=f"pillowd verify {self.key}", prepare=lambda _: None)
        asked = None if ids is None else [storable(id) for id in ids]
        (table,) = (table for table in self._tables if table.output == output)
        with closing(session):
            after: str | None = ""
            while after is not None:
                with session.transaction() as cursor:
                    parameters = {"after": after, "page": SWEEP_PAGE, "ids": asked}
                    found = cursor.execute(table.stored(some=ids is not None), parameters).fetchall()
                if found:
                    yield [
                        Stored(id=restored(id), rev=rev, write_version=version) for id, rev, version in found
                    ]
                after = found[-1][0] if len(found) == SWEEP_PAGE and ids is None else None

    def close(self) -> None:
        """Closes the connection, and ends what it still runs."""
        self._session.close()

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the tables and their kinds; columns can be added, and are checked."""
        return (
            (table.output, table.path, table.many, table.shared, bool(table.columns))
            for table in self._tables
        )

    def _prepare(self, cursor: psycopg.Cursor) -> None:
        """Makes on a new connection what lives as long as it does."""
        create_stages(cursor, self._tables)
        if self._opened:
            create_probes(cursor, self._tables)

    def _ensure(self, cursor: psycopg.Cursor) -> None:
        ensure(cursor, self._tables, self.connection.schema_)
        create_probes(cursor, self._tables)

    def _new_tables(self) -> list[Table]:
        schema = self.connection.schema_
        tables = [
            Table(number, output, options, schema, self.key.source)
            for number, (output, options) in enumerate(self.outputs.items())
        ]
        paths = [table.path for table in tables]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ConfigError(f"Two outputs of {self.key} write to {', '.join(twice)}.")
        return tables

    @contextmanager
    def _fenced(self) -> Iterator[psycopg.Cursor]:
        """A transaction in which nobody else can take the tail's fence."""
        with self._session.transaction() as cursor:
            self._checkpoint.hold(cursor)
            yield cursor

    def _sweep(self, table: Table, floor: int, kept: Sequence[str]) -> int:
        removed = 0
        after: str | None = ""
        while after is not None:
            with self._fenced() as cursor:
                parameters = {"after": after, "page": SWEEP_PAGE, "floor": floor, "kept": kept}
                [(after, count)] = cursor.execute(table.sweep, parameters).fetchall()
            removed += count
        return removed

    def _forget(self, *, floor: int = 0) -> None:
        """Removes write versions of deleted documents that no write can need any more, once in a while."""
        now = time.monotonic()
        if not floor and self._forgot_at is not None and now - self._forgot_at < FORGET_SECONDS:
            return
        self._forgot_at = now
        for table in self._tables:
            parameters = {"floor": floor, "seconds": self.connection.tombstone_ttl, "page": SWEEP_PAGE}
            forgotten = SWEEP_PAGE
            while forgotten == SWEEP_PAGE:
                with self._fenced() as cursor:
                    forgotten = cursor.execute(table.forget, parameters).rowcount


class _Checkpoints:
    """The tail's row of `pillowd_checkpoint`: its copy of the checkpoint, and who may write."""

    def __init__(self, key: TailKey, schema: str) -> None:
        self._key = key
        self._table_path = (schema, "pillowd_checkpoint")
        self._table = Name(*self._table_path)
        self._fence = secrets.token_hex(8)

    def known(self, cursor: psycopg.Cursor) -> TargetState:
        """What the row says, if it is there, and the table that it stands in."""
        schema, name = self._table_path
        return self.standing(cursor, ()) if there(cursor, schema, name) else TargetState()

    def standing(self, cursor: psycopg.Cursor, tables: Sequence[Table]) -> TargetState:
        """What the target remembers of the tail."""
        found = self._execute(
            cursor,
            "select epoch, checkpoint::text from {} where pillow = %(pillow)s and source = %(source)s",
        ).fetchone()
        standing = TargetState.from_row(found, empty=all(_is(cursor, table.is_empty) for table in tables))
        return (
            standing
            if found
            else standing.with_foreign_versions(_value(cursor, each.greatest_guard) for each in tables)
        )

    def acquire(self, cursor: psycopg.Cursor, checkpoint: Checkpoint) -> None:
        """Takes the fence, whoever had it. An epoch is never lowered."""
        self._execute(
            cursor,
            "insert into {} as c (pillow, source, generation, epoch, fence, seq, checkpoint, saved_at)"
            " values (%(pillow)s, %(source)s, %(generation)s, %(epoch)s, %(fence)s, %(seq)s, %(json)s, now())"
            " on conflict (pillow, source) do update set generation = excluded.generation,"
            " epoch = greatest(c.epoch, excluded.epoch), fence = excluded.fence, seq = excluded.seq,"
            " checkpoint = excluded.checkpoint, saved_at = excluded.saved_at",
            checkpoint,
        )

    def hold(self, cursor: psycopg.Cursor) -> None:
        """Keeps the fence until the end of the transaction.

        Raises:
            FencedError: somebody else has it, or nobody ever took it.
        """
        found = self._execute(
            cursor,
            "select from {} where pillow = %(pillow)s and source = %(source)s and fence = %(fence)s"
            " for no key update",
        )
        self._demand(found.rowcount)

    def save(self, cursor: psycopg.Cursor, checkpoint: Checkpoint) -> None:
        """Saves the checkpoint with the transaction.

        Raises:
            FencedError: somebody else has the fence.
        """
        saved = self._execute(
            cursor,
            "update {} set generation = %(generation)s, epoch = greatest(epoch, %(epoch)s), seq = %(seq)s,"
            " checkpoint = %(json)s, saved_at = now()"
            " where pillow = %(pillow)s and source = %(source)s and fence = %(fence)s",
            checkpoint,
        )
        self._demand(saved.rowcount)

    def _demand(self, found: int) -> None:
        if found != 1:
            raise FencedError(
                f"Another pillowd has claimed {self._key} in PostgreSQL.",
                remedy="run each pillow in one daemon only, then restart this pillow",
            )

    def _execute(
        self, cursor: psycopg.Cursor, statement: str, checkpoint: Checkpoint | None = None
    ) -> psycopg.Cursor:
        parameters: dict[str, Any] = {
            "pillow": self._key.pillow,
            "source": self._key.source,
            "fence": self._fence,
        }
        if checkpoint is not None:
            parameters |= {
                "generation": checkpoint.edits,
                "epoch": checkpoint.epoch,
                "seq": str(checkpoint.seq),
                "json": msgspec.json.encode(checkpoint.to_json()).decode(),
            }
        return cursor.execute(sql.SQL(statement).format(self._table), parameters)


def _value(cursor: psycopg.Cursor, query: bytes) -> Any:
    found = cursor.execute(query, ()).fetchone()
    return found[0] if found else None


def _is(cursor: psycopg.Cursor, query: bytes) -> bool:
    return bool(_value(cursor, query))
