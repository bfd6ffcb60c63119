"""Write to PostgreSQL: mapped columns or whole documents, rows and checkpoint in one transaction.

A batch is one transaction: it locks the fence, copies the rows (straight into the tables in a first
pass, otherwise through a staging table), refuses documents that are stored newer, and saves the
checkpoint. So after any crash the rows are those of the checkpoint: each change is applied once.

Therefore `synchronous_commit = off` would lose nothing if PostgreSQL is the only transport. It stays on
because with another transport it could lose changes, and it costs only one flush per batch.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, ClassVar

import psycopg
from msgspec.structs import replace

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError, PermanentError
from pillows.models import VERSION_BITS, Batch, DocumentRows, WriteResult, key_range
from pillows.options import Options, OutputOptions
from pillows.transports.base import KeyedTransport, Part, Stored, TargetState
from pillows.transports.common.mirroring import MirrorSupport
from pillows.transports.postgres.checkpoint import CheckpointRow
from pillows.transports.postgres.comparison import RowComparison
from pillows.transports.postgres.connection import ServerConnection
from pillows.transports.postgres.encoder import from_storable, to_storable
from pillows.transports.postgres.mirror import PostgresMirror
from pillows.transports.postgres.misfit_probe import create_probes
from pillows.transports.postgres.options import PostgresConnection, PostgresOutput
from pillows.transports.postgres.schema import (
    create_missing,
    create_stages,
    list_missing,
    table_exists,
    to_text,
)
from pillows.transports.postgres.statements import Table, fetch_value, select_storable
from pillows.transports.postgres.switch import PostgresSwitch
from pillows.transports.postgres.writer import PostgresBatchWriter, encode_batch

#: Documents per transaction of a sweep, which takes some tenths of a second.
SWEEP_PAGE = 10_000
#: Interval of the removal of write versions of documents that were deleted long ago.
FORGET_SECONDS = 3600.0

_WHERE_AM_I = """
    select current_setting('server_version'), current_database(), current_user,
        pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool,
        current_setting('server_encoding')
"""
_ENCODING_WARNING = (
    "warning: its encoding is {}, so a document with other characters becomes a dead letter:"
    " use a database with the encoding UTF8 (`create database NAME encoding 'UTF8' template template0`)"
)


#: How long a write that is undone waits for a lock: others wait behind it.
_TRY_LOCK_MS = 1000


class _RolledBack(Exception):
    """Ends a transaction without a commit."""


class PostgresTransport(KeyedTransport):
    """Keeps tables of a PostgreSQL database in step; see the module."""

    TYPE: ClassVar[str] = "postgres"
    Connection: ClassVar[type[Options]] = PostgresConnection
    Output: ClassVar[type[OutputOptions]] = PostgresOutput
    takes_json: ClassVar[bool] = True
    mirror: ClassVar[MirrorSupport | None] = PostgresMirror()
    transactional: ClassVar[bool] = True
    verifiable: ClassVar[bool] = True
    shareable: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: PostgresConnection,
        outputs: Mapping[str, PostgresOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._shared_connection: str | None = None
        self._tables = self._make_tables()
        self._checkpoint = CheckpointRow(key, connection.schema_)
        self._is_part = False
        self._opened = False
        self._acquired = False
        self._forgot_at: float | None = None
        self._server = ServerConnection(
            connection,
            application=f"pillowd {key}",
            prepare=self._prepare,
        )

    def check(self) -> str:
        """Connect and compare the tables with the configuration; see `Transport.check`."""
        application = f"pillowd {self.key}"
        server = ServerConnection(self.connection, application=application, prepare=lambda *_: None)
        with closing(server), server.transaction() as cursor:
            version, database, user, standby, encoding = cursor.execute(_WHERE_AM_I).fetchall()[0]
            if standby:
                raise ConfigError(f"The server of {self.name} is a standby.", remedy="connect to the primary")
            statements = list_missing(cursor, self._tables, self.connection.schema_)
        lines = "".join(f"\n  {to_text(each)};" for each in statements)
        start = f"a start will run:{lines}" if statements else "the tables exist"
        warning = "" if encoding == "UTF8" else f"; {_ENCODING_WARNING.format(encoding)}"
        return f"PostgreSQL {version}, database {database}, as {user}; {start}{warning}"

    def preview(self, batch: Batch) -> str:
        """Return the lines copied into each table, and the documents that lose their rows there."""
        documents, dead = encode_batch(batch, self._tables)
        if dead:
            raise PermanentError("; ".join(f"{id}: {why}" for id, why in dead.items()))
        texts = []
        for number, table in enumerate(self._tables):
            rows = b"".join(line for one in documents for line in one.lines[number])
            if rows:
                way = f"in a first pass; later into pg_temp.{table.stage}, and newer documents from there"
                texts.append(f"-- {way}\n{table.copy_direct.decode()};\n{rows.decode()}\\.\n")
            verb = "marked" if table.mark else "deleted"
            texts += [
                f"-- {table.path}: the rows of {one.document.id!r} are {verb}\n"
                for one in documents
                if not one.lines[number]
            ]
        return "".join(texts)

    def try_write(self, batch: Batch) -> WriteResult | None:
        """Write a batch in a transaction that is rolled back; see `Transport.try_write`."""
        tables = self._make_tables()
        documents, dead = encode_batch(batch, tables)
        server = ServerConnection(
            self.connection, application=f"pillowd preview {self.key}", prepare=lambda *_: None
        )
        result = None
        with closing(server), suppress(_RolledBack), server.transaction() as cursor:
            cursor.execute(f"set local lock_timeout = '{_TRY_LOCK_MS}ms'".encode())
            create_missing(cursor, tables, self.connection.schema_)
            create_stages(cursor, tables, transient=True)
            create_probes(cursor, tables)
            writer = PostgresBatchWriter(
                cursor, tables, first_pass=batch.first_pass, documents=documents, dead=dead
            )
            result = writer.write()
            raise _RolledBack
        return result

    def open(self) -> TargetState:
        """Connect, create and check the tables; see `Transport.open`."""
        self._server.close()
        self._tables = self._make_tables()
        self._opened = False
        with self._server.transaction() as cursor:
            absent = [
                table.output for table in self._tables if not table_exists(cursor, table.schema, table.name)
            ]
            known = self._checkpoint.find_state(cursor) if absent else TargetState()
            if (missing := self.find_missing_outputs(absent, known.checkpoint)) or known.unreadable:
                return replace(known, empty=False, missing_outputs=missing)
            self._create_missing(cursor)
            state = self._checkpoint.get_state(cursor, self._tables)
        self._opened = True
        return state

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store the checkpoint and take the fence; see `Transport.acquire`."""
        with self._server.transaction(self._checkpoint.lock_query if self._acquired else b"") as cursor:
            if self._acquired:
                self._checkpoint.require_fence(cursor)
            if not self._opened:
                self._create_missing(cursor)
            self._checkpoint.acquire(cursor, checkpoint)
            for table in self._tables:
                table.tombstoned = bool(fetch_value(cursor, table.has_versions_query))
        self._opened = self._acquired = True
        self._forget()

    def write(self, batch: Batch) -> WriteResult:
        """Write a batch and its checkpoint in one transaction; see `Transport.write`."""
        documents, dead = encode_batch(batch, self._tables)
        with self._fenced() as cursor:
            writer = PostgresBatchWriter(
                cursor, self._tables, first_pass=batch.first_pass, documents=documents, dead=dead
            )
            result = writer.write()
            if batch.checkpoint is not None and writer.is_clean:
                self._checkpoint.save(cursor, batch.checkpoint)
            if batch.checkpoints and (clean := batch.checkpoints_without((*result.dead, *result.refused))):
                self._checkpoint.save_members(cursor, clean)
        self._forget()
        return result

    def share(self, connection: str) -> None:
        """Derive a column `_source` of each table from the key; see `Transport.share`."""
        self._shared_connection = connection
        self._tables = self._make_tables()

    def take_part(self, part: Part) -> None:
        """Use a row, and a fence, of the part's own; see `Transport.take_part`."""
        self._checkpoint = CheckpointRow(self.key, self.connection.schema_, part.key)
        self._is_part = True

    def list_checkpoints(self) -> Iterable[tuple[TailKey, TargetState]]:
        """Yield the state of each database; see `Transport.list_checkpoints`."""
        with self._server.transaction() as cursor:
            yield from self._checkpoint.list_members(cursor)

    def sweep_database(self, database: str, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the rows of one database; see `Transport.sweep_database`."""
        stored_as = [to_storable(id) for id in kept]
        return sum(self._sweep(table, epoch << VERSION_BITS, stored_as, database) for table in self._tables)

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the rows of lower epochs; see `Transport.finish_pass`."""
        if self._is_part:
            return 0
        stored_as = [to_storable(id) for id in kept]
        removed = sum(self._sweep(table, epoch << VERSION_BITS, stored_as) for table in self._tables)
        self._forget(floor=epoch << VERSION_BITS)
        return removed

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """Yield pages of a table's documents in the order of its index; see `KeyedTransport.stored`."""
        yield from self._stored(output, ids)

    def stored_of(self, output: str, database: str) -> Iterator[Sequence[Stored]]:
        """Yield pages of one database's documents; see `KeyedTransport.stored_of`."""
        yield from self._stored(output, None, database)

    def _stored(
        self, output: str, ids: Sequence[str] | None, database: str | None = None
    ) -> Iterator[Sequence[Stored]]:
        server = ServerConnection(
            self.connection, application=f"pillowd verify {self.key}", prepare=lambda *_: None
        )
        asked = None if ids is None else [to_storable(id) for id in ids]
        (table,) = (table for table in self._tables if table.output == output)
        with closing(server):
            after, before = _get_bounds(database)
            while after is not None:
                with server.transaction() as cursor:
                    ids_there = None if asked is None else select_storable(cursor, asked)
                    parameters = {"after": after, "before": before, "page": SWEEP_PAGE, "ids": ids_there}
                    found = cursor.execute(table.stored(some=ids is not None), parameters).fetchall()
                if found:
                    yield [
                        Stored(id=from_storable(id), rev=rev, write_version=version)
                        for id, rev, version in found
                    ]
                after = found[-1][0] if len(found) == SWEEP_PAGE and ids is None else None

    def describe_incomparable(self, output: str) -> str:  # noqa: ARG002 - the contract's
        """Return "": every table's rows can be compared."""
        return ""

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents whose rows in the table differ from those that a write would store.

        See `KeyedTransport.find_altered`.
        """
        with self._server.transaction() as cursor:
            (table,) = (table for table in self._tables if table.output == output)
            return RowComparison(cursor, table).find_altered(documents)

    def close(self) -> None:
        """Close the connection and cancel its query."""
        self._server.close()

    def make_switch(self) -> PostgresSwitch:
        """Return the switch by which two builds change places; see `Transport.make_switch`."""
        return PostgresSwitch(self.key, self.connection, self._make_tables())

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the tables and their kinds; columns can be added, and are checked."""
        return (
            (table.output, table.configured_path, table.many, table.shared, bool(table.columns), *table.marks)
            for table in self._tables
        )

    def _prepare(self, cursor: psycopg.Cursor, transient: bool) -> None:
        """Create temporary objects: staging tables and, once the outputs exist, the probe functions."""
        create_stages(cursor, self._tables, transient=transient)
        if self._opened:
            create_probes(cursor, self._tables)

    def _create_missing(self, cursor: psycopg.Cursor) -> None:
        create_missing(cursor, self._tables, self.connection.schema_)
        create_probes(cursor, self._tables)

    def _make_tables(self) -> list[Table]:
        schema, shared = self.connection.schema_, self._shared_connection
        tables = [
            Table(number, output, options, schema, self.key.source, connection=shared)
            for number, (output, options) in enumerate(self.outputs.items())
        ]
        paths = [table.path for table in tables]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ConfigError(f"Two outputs of {self.key} write to {', '.join(twice)}.")
        return tables

    @contextmanager
    def _fenced(self) -> Iterator[psycopg.Cursor]:
        """Begin a transaction in which no other process can take the tail's fence."""
        with self._server.transaction(self._checkpoint.lock_query) as cursor:
            self._checkpoint.require_fence(cursor)
            yield cursor

    def _sweep(self, table: Table, floor: int, kept: Sequence[str], database: str | None = None) -> int:
        """Remove the rows of all databases, or of one: keys are compared as bytes, so they lie in a range."""
        removed = 0
        after, before = _get_bounds(database)
        while after is not None:
            with self._fenced() as cursor:
                storable = select_storable(cursor, kept)
                bounds = {"after": after, "before": before, "page": SWEEP_PAGE}
                parameters = {**bounds, "floor": floor, "kept": storable}
                [(after, count)] = cursor.execute(table.sweep, parameters).fetchall()
            removed += count
        return removed

    def _forget(self, *, floor: int = 0) -> None:
        """Remove write versions of deleted documents that no write needs any more, once in a while."""
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


def _get_bounds(database: str | None) -> tuple[str | None, str | None]:
    """Return the texts between which the ids of all documents lie, or those of one database."""
    return ("", None) if database is None else key_range(database)
