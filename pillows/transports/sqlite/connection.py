"""The connection to an SQLite file, its transactions, and the thread that they run in.

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

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from pillows.errors import ConfigError, RetryableError, StateLostError
from pillows.transports.common.blocking import Turns
from pillows.transports.sqlite.errors import translated

_Result = TypeVar("_Result")


class Session:
    """The connection that a transport owns. All but `run` belongs into what `run` is given.

    Args:
        path: the file.
        busy_timeout_seconds: how long a statement waits for another process's lock.
    """

    def __init__(self, path: Path, *, busy_timeout_seconds: float) -> None:
        self._path = path
        self._busy_timeout_seconds = busy_timeout_seconds
        self._turns = Turns(self._cancel)
        self._cancelled = False
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Runs `work` in a thread when its turn comes; returns or raises what it does.

        Raises:
            PillowError: what `translated` makes of an error of SQLite.
        """

        def begin() -> _Result:
            self._cancelled = False
            return work()

        try:
            return self._turns.run(begin)
        except sqlite3.Error as error:
            raise translated(error, self._path) from error

    def open(self) -> None:
        """Opens the file, which is made when it is missing; anew when it is open.

        Raises:
            ConfigError: SQLite is too old, or its journal cannot be what it must be.
        """
        self.close()
        if sqlite3.sqlite_version_info < (3, 37):
            raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: pillowd needs 3.37 for STRICT.")
        db = self._db = sqlite3.connect(
            self._path, timeout=self._busy_timeout_seconds, isolation_level=None, check_same_thread=False
        )
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise ConfigError(f"{self._path} cannot be journaled as WAL on its file system.")
        db.execute("PRAGMA synchronous = FULL")
        self._file = self._identity()

    def close(self) -> None:
        """Closes the file; nothing when it is closed."""
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed at the end of the block, rolled back when it raises.

        Raises:
            RetryableError: the file is not open, or nobody waits for the call any more.
            StateLostError: the file is not the one that was opened.
        """
        if self._db is None:
            raise RetryableError("The database is not open.")
        db = self._db
        self._check_same_file()
        if db.in_transaction:  # left by a rollback that the disk refused
            db.execute("ROLLBACK")
        # IMMEDIATE: a transaction that begins as a reader can be refused the write lock for good.
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            self.check_cancelled()
            db.execute("COMMIT")
        finally:
            # After some errors (disk full, I/O) SQLite has rolled back by itself.
            if db.in_transaction:
                db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that reads, whether the file is open here or not."""
        with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            yield db

    def check_cancelled(self) -> None:
        """Looks whether anybody still waits for the call.

        Raises:
            RetryableError: nobody does.
        """
        if self._cancelled:
            raise RetryableError("The write was cancelled.")

    def _cancel(self) -> None:
        self._cancelled = True
        if self._db is not None:
            self._db.interrupt()

    def _check_same_file(self) -> None:
        # A file that was moved or deleted under an open connection takes every write and keeps none.
        if self._file != self._identity():
            raise StateLostError(
                f"{self._path} was moved, deleted or replaced while pillowd wrote to it.",
                remedy="put it back and restart the pillow, or `pillowd checkpoint reset` to fill a new one",
            )

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return (-1, -1)
        return found.st_dev, found.st_ino
