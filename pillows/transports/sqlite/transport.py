"""Writes into an SQLite file: mapped columns or whole documents, rows and checkpoint in one commit.

A batch is one transaction: it looks at the fence, refuses what is stored newer, writes the rows and
saves the checkpoint. So after any crash the rows are those of the checkpoint.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from checkpoints import Checkpoint, TailKey
from pillows.errors import AccessError, ConfigError, PermanentError
from pillows.models import VERSION_BITS, Batch, WriteResult, write_version
from pillows.options import Duration, Options, OutputOptions
from pillows.transports.base import KeyedTransport, Stored, TargetState, newest
from pillows.transports.common.addresses import check_folder
from pillows.transports.common.columns import TableOutput
from pillows.transports.common.mirroring import MirrorSupport
from pillows.transports.sqlite.checkpoint import Checkpoints
from pillows.transports.sqlite.connection import Session
from pillows.transports.sqlite.mirror import SqliteMirror
from pillows.transports.sqlite.options import SqliteOutput
from pillows.transports.sqlite.statements import OWN_TABLES, Table
from pillows.transports.sqlite.writer import BatchWriter

#: Documents that one look at a table gives.
_PAGE = 10_000

#: What a database file begins with (SQLite docs, "Database File Format").
_MAGIC = b"SQLite format 3\0"


class SqliteConnection(Options):
    """The database file.

    Attributes:
        path: the file; it is created when missing, its folder is not.
        busy_timeout: how long a write waits for another process's lock before it is tried again.
        tombstone_ttl: how long a deleted document's version is remembered.
    """

    path: Path
    busy_timeout: Duration = 5.0
    tombstone_ttl: Duration = 30 * 86400.0


class SqliteTransport(KeyedTransport):
    """Keeps tables of an SQLite file in step; see the module."""

    TYPE: ClassVar[str] = "sqlite"
    Connection: ClassVar[type[Options]] = SqliteConnection
    Output: ClassVar[type[OutputOptions]] = SqliteOutput
    mirror: ClassVar[MirrorSupport | None] = SqliteMirror()
    transactional: ClassVar[bool] = True
    verifiable: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: SqliteConnection,
        outputs: Mapping[str, TableOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._tables = _tables(outputs)
        self._checkpoint = Checkpoints(key, connection.path)
        self._session = Session(connection.path, busy_timeout_seconds=connection.busy_timeout)

    def check(self) -> str:
        """Looks at the file and its folder; see `Transport.check`."""
        path = self.connection.path
        check_folder(path.parent)
        if not path.exists():
            return f"{path} will be made"
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
        if head not in (b"", _MAGIC):
            raise ConfigError(f"{path} is no SQLite database.", remedy="name another file")
        if not os.access(path, os.W_OK):
            raise AccessError(f"{path} cannot be written to.", remedy="let the daemon's user write to it")
        return f"{path} is a database"

    def preview(self, batch: Batch) -> str:
        """The statements, as SQLite runs them where nothing is stored of the documents yet."""
        statements: list[str] = []
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            self._create_own(db)
            self._create(db)
            db.set_trace_callback(statements.append)
            writer = BatchWriter(db, self._tables)
            for document in newest(batch.documents):
                ours = write_version(batch.epoch, document.leaf_version)
                if reason := writer.put(document, ours, {}, first_pass=False):
                    raise PermanentError(reason)
        return "".join(
            f"{each};\n" for each in statements if "SAVEPOINT" not in each and "RELEASE" not in each
        )

    def open(self) -> TargetState:
        """Opens the file, creates and checks the tables; see `Transport.open`."""
        return self._session.run(self._open)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Stores the checkpoint and takes the fence; see `Transport.acquire`."""
        self._session.run(lambda: self._claim(checkpoint))

    def write(self, batch: Batch) -> WriteResult:
        """Writes a batch and its checkpoint in one transaction; see `Transport.write`."""
        return self._session.run(lambda: self._write(batch))

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Removes the rows of lower epochs; see `Transport.finish_pass`."""
        return self._session.run(lambda: self._sweep(epoch << VERSION_BITS, kept))

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """The documents of a table, page by page; see `Transport.stored`."""
        table = self._tables[output]
        after = ""
        while True:
            found = self._session.run(lambda after=after: self._read(table, after, ids))  # type: ignore[misc]
            yield [Stored(id=id, rev=rev, write_version=version) for id, rev, version in found]
            if ids is not None or len(found) < _PAGE:
                return
            after = found[-1][0]

    def close(self) -> None:
        """Closes the file once a cancelled call has let go of it."""
        self._session.run(self._session.close)

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the tables and their kinds; columns can be added, and are checked."""
        return (
            (output, table.name, table.many, bool(table.columns)) for output, table in self._tables.items()
        )

    # -- what runs in the session's thread

    def _open(self) -> TargetState:
        self._session.open()
        with self._session.transaction() as db:
            self._create_own(db)
            absent = [output for output, table in self._tables.items() if not table.is_there(db)]
            known = self._checkpoint.standing(db, ())
            if (missing := self.find_missing_outputs(absent, known.checkpoint)) or (
                absent and known.unreadable
            ):
                return replace(known, empty=False, missing_outputs=missing)
            self._create(db)
            return self._checkpoint.standing(db, self._tables.values())

    def _create_own(self, db: sqlite3.Connection) -> None:
        for statement in OWN_TABLES.split(";"):
            db.execute(statement)

    def _create(self, db: sqlite3.Connection) -> None:
        for table in self._tables.values():
            table.create(db)
            table.forget(db, time.time() - self.connection.tombstone_ttl)

    def _claim(self, checkpoint: Checkpoint) -> None:
        with self._session.transaction() as db:
            self._create(db)  # those that were lost, and have been reset since
            self._checkpoint.acquire(db, checkpoint)

    def _write(self, batch: Batch) -> WriteResult:
        with self._fenced() as db:
            result = BatchWriter(db, self._tables, self._session.check_cancelled).write(batch)
            if batch.checkpoint is not None and not result.dead and not result.refused:
                self._checkpoint.save(db, batch.checkpoint)
        return result

    def _sweep(self, floor: int, kept: Collection[str]) -> int:
        with self._fenced() as db:
            return sum(table.sweep(db, floor, kept) for table in self._tables.values())

    def _read(
        self, table: Table, after: str, ids: Sequence[str] | None
    ) -> list[tuple[str, str | None, int | None]]:
        with self._session.reading() as db:
            return table.stored(db, after, _PAGE, ids)

    @contextmanager
    def _fenced(self) -> Iterator[sqlite3.Connection]:
        """A transaction that only the holder of the tail's fence gets."""
        with self._session.transaction() as db:
            self._checkpoint.check_fence(db)
            yield db


def _tables(outputs: Mapping[str, TableOutput]) -> dict[str, Table]:
    taken: dict[str, str] = {}
    for output, options in outputs.items():
        if (other := taken.setdefault(options.table.lower(), output)) != output:
            raise ConfigError(f"Outputs {other!r} and {output!r} both name table {options.table!r}.")
    return {output: Table(options) for output, options in outputs.items()}
