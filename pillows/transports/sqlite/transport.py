"""Write to an SQLite file: mapped columns or whole documents, rows and checkpoint in one transaction.

A batch is one transaction: it checks the fence, refuses documents that are stored newer, writes the
rows and saves the checkpoint. So after any crash the rows are those of the checkpoint.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar

from msgspec.structs import replace

from checkpoints import Checkpoint, TailKey
from pillows.errors import AccessError, ConfigError, PermanentError
from pillows.models import VERSION_BITS, Batch, DocumentRows, WriteResult, key_range, newest, write_version
from pillows.options import Options, OutputOptions
from pillows.transports.base import KeyedTransport, Stored, TargetState
from pillows.transports.common.addresses import check_folder
from pillows.transports.common.columns import TableOutput
from pillows.transports.common.mirroring import MirrorSupport
from pillows.transports.sqlite.checkpoint import CheckpointRow
from pillows.transports.sqlite.comparison import find_altered
from pillows.transports.sqlite.connection import SqliteWorker
from pillows.transports.sqlite.mirror import SqliteMirror
from pillows.transports.sqlite.options import SqliteConnection, SqliteOutput
from pillows.transports.sqlite.statements import Table, create_own_tables
from pillows.transports.sqlite.switch import SqliteSwitch
from pillows.transports.sqlite.writer import SqliteBatchWriter

#: Documents per page of a table.
_PAGE = 10_000

#: The beginning of a database file (SQLite docs, "Database File Format").
_MAGIC = b"SQLite format 3\0"


class SqliteTransport(KeyedTransport):
    """Keeps tables of an SQLite file in step; see the module."""

    TYPE: ClassVar[str] = "sqlite"
    Connection: ClassVar[type[Options]] = SqliteConnection
    Output: ClassVar[type[OutputOptions]] = SqliteOutput
    takes_json: ClassVar[bool] = True
    mirror: ClassVar[MirrorSupport | None] = SqliteMirror()
    transactional: ClassVar[bool] = True
    verifiable: ClassVar[bool] = True
    shareable: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: SqliteConnection,
        outputs: Mapping[str, TableOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._tables = _make_tables(outputs)
        self._checkpoint = CheckpointRow(key, connection.path)
        self._worker = SqliteWorker(connection.path, busy_timeout_seconds=connection.busy_timeout)

    def check(self) -> str:
        """Check the file and its folder; see `Transport.check`."""
        path = self.connection.path
        check_folder(path.parent)
        if not path.exists():
            return f"{path} will be created"
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
        if head not in (b"", _MAGIC):
            raise ConfigError(f"{path} is not an SQLite database.", remedy="name another file")
        if not os.access(path, os.W_OK):
            raise AccessError(f"{path} cannot be written to.", remedy="let the daemon's user write to it")
        return f"{path} is a database"

    def preview(self, batch: Batch) -> str:
        """Return the statements, as SQLite runs them if nothing is stored of the documents yet."""
        statements: list[str] = []
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            create_own_tables(db)
            self._create(db)
            db.set_trace_callback(statements.append)
            writer = SqliteBatchWriter(db, self._tables)
            for document in newest(batch.documents):
                ours = write_version(batch.epoch, document.leaf_version)
                if reason := writer.put(document, ours, {}, first_pass=False):
                    raise PermanentError(reason)
        return "".join(
            f"{each};\n" for each in statements if "SAVEPOINT" not in each and "RELEASE" not in each
        )

    def try_write(self, batch: Batch) -> WriteResult | None:
        """Write a batch in a transaction that is rolled back; see `Transport.try_write`.

        A file that does not exist is not created: then the tables are made in memory.
        """
        return self._worker.run(self._try_write, batch)

    def open(self) -> TargetState:
        """Open the file, create and check the tables; see `Transport.open`."""
        return self._worker.run(self._open)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store the checkpoint and take the fence; see `Transport.acquire`."""
        self._worker.run(self._acquire, checkpoint)

    def write(self, batch: Batch) -> WriteResult:
        """Write a batch and its checkpoint in one transaction; see `Transport.write`."""
        return self._worker.run(self._write, batch)

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the rows of lower epochs; see `Transport.finish_pass`."""
        return self._worker.run(self._sweep, epoch << VERSION_BITS, kept)

    def share(self, connection: str) -> None:
        """Derive a column `_source` of each table from the key; see `Transport.share`."""
        self._tables = _make_tables(self.outputs, connection)

    def list_checkpoints(self) -> Iterable[tuple[TailKey, TargetState]]:
        """Return the state of each database; see `Transport.list_checkpoints`."""
        return self._worker.run(self._list_checkpoints)

    def sweep_database(self, database: str, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the rows of one database; see `Transport.sweep_database`."""
        return self._worker.run(self._sweep, epoch << VERSION_BITS, kept, database)

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """Yield pages of a table's documents; see `KeyedTransport.stored`."""
        yield from self._stored(output, ids)

    def stored_of(self, output: str, database: str) -> Iterator[Sequence[Stored]]:
        """Yield pages of one database's documents; see `KeyedTransport.stored_of`."""
        yield from self._stored(output, None, database)

    def _stored(
        self, output: str, ids: Sequence[str] | None, database: str | None = None
    ) -> Iterator[Sequence[Stored]]:
        table = self._tables[output]
        after, before = ("", None) if database is None else key_range(database)
        while True:
            found = self._worker.run(self._read, table, (after, before), ids)
            yield [Stored(id=id, rev=rev, write_version=version) for id, rev, version in found]
            if ids is not None or len(found) < _PAGE:
                return
            after = found[-1][0]

    def describe_incomparable(self, output: str) -> str:  # noqa: ARG002 - the contract's
        """Return "": every table's rows can be compared."""
        return ""

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents whose rows in the table differ from those that a write would store.

        See `KeyedTransport.find_altered`.
        """
        return self._worker.run(self._find_altered, output, documents)

    def close(self) -> None:
        """Close the file once a cancelled call has ended."""
        self._worker.run(self._worker.close)

    def make_switch(self) -> SqliteSwitch:
        """Return the switch by which two builds change places; see `Transport.make_switch`."""
        return SqliteSwitch(self.key, self.connection, list(self._tables.values()))

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the tables and their kinds; columns can be added, and are checked."""
        return (
            (output, table.live_name, table.many, bool(table.columns), *([table.mark] if table.mark else []))
            for output, table in self._tables.items()
        )

    # -- called in the worker's thread

    def _open(self) -> TargetState:
        self._worker.open()
        with self._worker.transaction() as db:
            create_own_tables(db)
            absent = [output for output, table in self._tables.items() if not table.exists(db)]
            known = self._checkpoint.get_state(db, ())
            if (missing := self.find_missing_outputs(absent, known.checkpoint)) or (
                absent and known.unreadable
            ):
                return replace(known, empty=False, missing_outputs=missing)
            self._create(db)
            return self._checkpoint.get_state(db, self._tables.values())

    def _create(self, db: sqlite3.Connection) -> None:
        for table in self._tables.values():
            table.create(db)
            table.forget(db, time.time() - self.connection.tombstone_ttl)

    def _acquire(self, checkpoint: Checkpoint) -> None:
        with self._worker.transaction() as db:
            self._create(db)  # those that were missing, and have been reset since
            self._checkpoint.acquire(db, checkpoint)

    def _write(self, batch: Batch) -> WriteResult:
        with self._worker.transaction() as db:
            self._checkpoint.check_fence(db)
            result = SqliteBatchWriter(db, self._tables, self._worker.check_cancelled).write(batch)
            if batch.checkpoint is not None and not result.dead and not result.refused:
                self._checkpoint.save(db, batch.checkpoint)
            if batch.checkpoints:
                clean = batch.checkpoints_without((*result.dead, *result.refused))
                self._checkpoint.save_members(db, clean)
        return result

    def _try_write(self, batch: Batch) -> WriteResult:
        path, is_there = self.connection.path, self.connection.path.exists()
        name = f"{path.absolute().as_uri()}?mode=rw" if is_there else ":memory:"
        seconds = self.connection.busy_timeout
        with closing(sqlite3.connect(name, timeout=seconds, isolation_level=None, uri=is_there)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                create_own_tables(db)
                self._create(db)
                return SqliteBatchWriter(db, self._tables, self._worker.check_cancelled).write(batch)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _list_checkpoints(self) -> Iterator[tuple[TailKey, TargetState]]:
        with self._worker.read() as db:
            return self._checkpoint.list_members(db)

    def _sweep(self, floor: int, kept: Collection[str], database: str | None = None) -> int:
        with self._worker.transaction() as db:
            self._checkpoint.check_fence(db)
            return sum(table.sweep(db, floor, kept, database) for table in self._tables.values())

    def _read(
        self, table: Table, between: tuple[str, str | None], ids: Sequence[str] | None
    ) -> list[tuple[str, str | None, int | None]]:
        with self._worker.read() as db:
            table.guard(db, again=True)
            return table.stored(db, between, _PAGE, ids)

    def _find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        with self._worker.read() as db, closing(sqlite3.connect(":memory:", isolation_level=None)) as scratch:
            create_own_tables(scratch)
            table = self._tables[output]
            table.create(scratch)
            table.guard(db, again=True)  # is the one that counts, in both
            return find_altered(db, scratch, output, table, documents)


def _make_tables(outputs: Mapping[str, TableOutput], connection: str | None = None) -> dict[str, Table]:
    taken: dict[str, str] = {}
    for output, options in outputs.items():
        if (other := taken.setdefault(options.table.lower(), output)) != output:
            raise ConfigError(f"Outputs {other!r} and {output!r} both name table {options.table!r}.")
    return {output: Table(options, connection=connection) for output, options in outputs.items()}
