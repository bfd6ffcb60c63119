"""Writes into an SQLite file: mapped columns or whole documents, rows and checkpoint in one commit.

`sqlite3` blocks the thread that calls it: on the disk, and for as long as another process holds the
write lock. So every call runs in the hub's thread pool, one at a time per transport (`_threads`), on the
one connection that belongs to whoever has the turn (that is why `check_same_thread` is off). A
greenlet that is killed while it waits cancels its call: SQLite is interrupted, and the transaction
rolls back in the thread before the turn passes on.

The journal is WAL, so readers never block the writer, with `synchronous=FULL`: a commit that was
acknowledged is on the disk (with WAL's usual NORMAL, power loss may take back the last ones; SQLite
docs, "PRAGMA synchronous").
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import msgspec

from checkpoints import Checkpoint, TailKey
from pillows.errors import (
    AccessError,
    ConfigError,
    FatalError,
    FencedError,
    PermanentError,
    RetryableError,
    StateLostError,
)
from pillows.models import VERSION_BITS, Batch, DocumentRows, Standing, WriteResult, guard
from pillows.options import Duration, Options
from pillows.transports._columns import TableOutput
from pillows.transports._places import check_folder
from pillows.transports._sqlite_tables import OWN_TABLES, Guard, Table
from pillows.transports._threads import Turns
from pillows.transports.base import Stored, Transport, newest

_Result = TypeVar("_Result")

# Result codes by what must be done (SQLite docs, "Result and Error Codes"); extended codes carry the
# primary one in their lowest byte.
_LATER = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_INTERRUPT,
}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ACCESS = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}
_OF_THE_ROW = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}

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


class SqliteTransport(Transport):
    """Keeps tables of an SQLite file in step; see the module."""

    Connection: ClassVar[type[Options]] = SqliteConnection
    Output: ClassVar[type[Options]] = TableOutput
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
        self._fence = secrets.token_hex(8)
        self._turns = Turns(self._cancel)
        self._cancelled = False
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)

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
            self._create(db)
            db.set_trace_callback(statements.append)
            for document in newest(batch.documents):
                if reason := self._put(db, document, guard(batch.epoch, document.version), {}, False):
                    raise PermanentError(reason)
        return "".join(
            f"{each};\n" for each in statements if "SAVEPOINT" not in each and "RELEASE" not in each
        )

    def open(self) -> Standing:
        """Opens the file, creates and checks the tables; see `Transport.open`."""
        return self._in_thread(self._open)

    def claim(self, checkpoint: Checkpoint) -> None:
        """Stores the checkpoint and takes the fence; see `Transport.claim`."""
        self._in_thread(lambda: self._claim(checkpoint))

    def write(self, batch: Batch) -> WriteResult:
        """Writes a batch and its checkpoint in one transaction; see `Transport.write`."""
        return self._in_thread(lambda: self._write(batch))

    def complete_pass(self, epoch: int) -> int:
        """Removes the rows of lower epochs; see `Transport.complete_pass`."""
        return self._in_thread(lambda: self._sweep(epoch << VERSION_BITS))

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """The documents of a table, page by page; see `Transport.stored`."""
        table = self._tables[output]
        after = ""
        while True:
            found = self._in_thread(lambda after=after: self._read(table, after, ids))  # type: ignore[misc]
            yield [Stored(id=id, rev=rev, guard=version) for id, rev, version in found]
            if ids is not None or len(found) < _PAGE:
                return
            after = found[-1][0]

    def close(self) -> None:
        """Closes the file once a cancelled call has let go of it."""
        self._in_thread(self._close)

    def outputs_digest(self) -> str:
        """Digest of which tables there are and of their kinds; columns can be added, and are checked."""
        kinds = [
            (output, table.name, table.many, bool(table.columns)) for output, table in self._tables.items()
        ]
        return hashlib.sha256(msgspec.json.encode(sorted(kinds))).hexdigest()

    def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        try:
            return self._turns.run(lambda: self._begin(work))
        except sqlite3.Error as error:
            raise _meaning(error, self.connection.path) from error

    def _cancel(self) -> None:
        self._cancelled = True
        if self._db is not None:
            self._db.interrupt()

    # -- what runs in the thread

    def _begin(self, work: Callable[[], _Result]) -> _Result:
        self._cancelled = False
        return work()

    def _open(self) -> Standing:
        self._close()
        if sqlite3.sqlite_version_info < (3, 37):
            raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: pillowd needs 3.37 for STRICT.")
        db = self._db = sqlite3.connect(
            self.connection.path,
            timeout=self.connection.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise ConfigError(f"{self.connection.path} cannot be journaled as WAL on its file system.")
        db.execute("PRAGMA synchronous = FULL")
        self._file = self._identity()
        with self._transaction(fenced=False):
            self._create(db)
            return self._standing(db)

    def _create(self, db: sqlite3.Connection) -> None:
        for statement in OWN_TABLES.split(";"):
            db.execute(statement)
        for table in self._tables.values():
            table.create(db)
            table.forget(db, time.time() - self.connection.tombstone_ttl)

    def _standing(self, db: sqlite3.Connection) -> Standing:
        found = db.execute(
            "SELECT epoch, checkpoint FROM pillowd_checkpoint WHERE pillow = ? AND source = ?",
            (self.key.pillow, self.key.source),
        ).fetchone()
        return Standing(
            epoch=found[0] if found else None,
            empty=all(table.is_empty(db) for table in self._tables.values()),
            checkpoint=_checkpoint(found[1]) if found else None,
        )

    def _claim(self, checkpoint: Checkpoint) -> None:
        with self._transaction(fenced=False) as db:
            db.execute(
                "INSERT INTO pillowd_checkpoint (pillow, source, fence, generation, epoch, seq, checkpoint)"
                " VALUES (?, ?, ?, 0, 0, '', '')"
                " ON CONFLICT (pillow, source) DO UPDATE SET fence = excluded.fence",
                (self.key.pillow, self.key.source, self._fence),
            )
            self._save(db, checkpoint)

    def _save(self, db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
        db.execute(
            "UPDATE pillowd_checkpoint SET generation = ?, epoch = max(epoch, ?), seq = ?, checkpoint = ?"
            " WHERE pillow = ? AND source = ?",
            (
                checkpoint.generation,
                checkpoint.epoch,
                checkpoint.seq.json,
                msgspec.json.encode(checkpoint.to_json()).decode(),
                self.key.pillow,
                self.key.source,
            ),
        )

    def _write(self, batch: Batch) -> WriteResult:
        documents = newest(batch.documents)
        with self._transaction() as db:
            known = self._known(db, [document.id for document in documents])
            refused: dict[str, int] = {}
            dead: dict[str, str] = {}
            for document in documents:
                self._check_cancelled()
                ours = guard(batch.epoch, document.version)
                stored = max((g.version for g in known.get(document.id, {}).values()), default=-1)
                if stored >= ours:
                    refused[document.id] = stored
                elif reason := self._put(db, document, ours, known.get(document.id, {}), batch.first_pass):
                    dead[document.id] = reason
            if batch.checkpoint is not None and not dead and not refused:
                self._save(db, batch.checkpoint)
        return WriteResult(refused=refused, dead=dead)

    def _known(self, db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, dict[str, Guard]]:
        """Document id -> output -> what is stored of it there."""
        known: dict[str, dict[str, Guard]] = {}
        for output, table in self._tables.items():
            for id, found in table.guards(db, ids).items():
                known.setdefault(id, {})[output] = found
        return known

    def _put(
        self,
        db: sqlite3.Connection,
        document: DocumentRows,
        ours: int,
        known: Mapping[str, Guard],
        first_pass: bool,
    ) -> str:
        """Writes one document into every table, or into none and tells why it never can be."""
        db.execute("SAVEPOINT document")
        try:
            for output, table in self._tables.items():
                rows = document.rows.get(output, ())
                table.put(db, document, rows, ours, known.get(output), first_pass=first_pass)
        except (PermanentError, sqlite3.Error, OverflowError, ValueError) as error:
            if isinstance(error, sqlite3.Error) and not _is_of_the_row(error):
                raise
            db.execute("ROLLBACK TO document")
            return str(error)
        finally:
            if db.in_transaction:
                db.execute("RELEASE document")
        return ""

    def _read(
        self, table: Table, after: str, ids: Sequence[str] | None
    ) -> list[tuple[str, str | None, int | None]]:
        with closing(sqlite3.connect(f"{self.connection.path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return table.stored(db, after, _PAGE, ids)

    def _sweep(self, floor: int) -> int:
        with self._transaction() as db:
            return sum(table.sweep(db, floor) for table in self._tables.values())

    def _close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    @contextmanager
    def _transaction(self, *, fenced: bool = True) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise RetryableError("The database is not open.")
        db = self._db
        self._check_same_file()
        if db.in_transaction:  # left by a rollback that the disk refused
            db.execute("ROLLBACK")
        # IMMEDIATE: a transaction that begins as a reader can be refused the write lock for good.
        db.execute("BEGIN IMMEDIATE")
        try:
            if fenced:
                self._check_fence(db)
            yield db
            self._check_cancelled()
            db.execute("COMMIT")
        finally:
            # After some errors (disk full, I/O) SQLite has rolled back by itself.
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise RetryableError("The write was cancelled.")

    def _check_fence(self, db: sqlite3.Connection) -> None:
        found = db.execute(
            "SELECT fence FROM pillowd_checkpoint WHERE pillow = ? AND source = ?",
            (self.key.pillow, self.key.source),
        ).fetchone()
        if found is None or found[0] != self._fence:
            raise FencedError(
                f"Another pillowd writes {self.key} to {self.connection.path}.",
                remedy="run each pillow in one daemon only, then restart this pillow",
            )

    def _check_same_file(self) -> None:
        # A file that was moved or deleted under an open connection takes every write and keeps none.
        if self._file != self._identity():
            raise StateLostError(
                f"{self.connection.path} was moved, deleted or replaced while pillowd wrote to it.",
                remedy="put it back and restart the pillow, or `pillowd checkpoint reset` to fill a new one",
            )

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self.connection.path)
        except FileNotFoundError:
            return (-1, -1)
        return found.st_dev, found.st_ino


def _tables(outputs: Mapping[str, TableOutput]) -> dict[str, Table]:
    taken: dict[str, str] = {}
    for output, options in outputs.items():
        if (other := taken.setdefault(options.table.lower(), output)) != output:
            raise ConfigError(f"Outputs {other!r} and {output!r} both name table {options.table!r}.")
    return {output: Table(options) for output, options in outputs.items()}


def _is_of_the_row(error: sqlite3.Error) -> bool:
    # Without a code it was raised by Python's binding of a parameter (a list into a text column).
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _OF_THE_ROW


def _meaning(error: sqlite3.Error, path: Path) -> Exception:
    """What an error of SQLite means for the pillow."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _LATER:
        return RetryableError(f"SQLite: {error} ({path}).")
    if code in _BROKEN:
        return FatalError(
            f"{path} is no SQLite database, or a damaged one: {error}.",
            remedy="restore or remove the file, then `pillowd checkpoint reset` fills it anew",
        )
    if code in _NO_ACCESS:
        return AccessError(
            f"{path} cannot be opened for writing: {error}.",
            remedy="make its folder, and let the daemon's user write to folder and file",
        )
    return FatalError(f"SQLite refuses what pillowd does with {path}: {error}.")


def _checkpoint(text: str) -> Checkpoint:
    try:
        return Checkpoint.from_json(msgspec.json.decode(text))
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise StateLostError(
            f"The checkpoint in table pillowd_checkpoint cannot be read: {error!r}.",
            remedy="delete that row, or run a pillowd at least as new as the one that wrote it",
        ) from error
