"""The connection to an SQLite file, its transactions, and the thread that they run in.

`sqlite3` blocks the thread that calls it: on the disk, and while another process holds the write lock.
So every call runs in the transport's own thread, one at a time, on one connection that belongs
to the call whose turn it is (that is why `check_same_thread` is off). A greenlet that is killed while it
waits interrupts SQLite, and the transaction rolls back in the thread before the next turn.

The journal is WAL, so readers never block the writer, with `synchronous=FULL`: an acknowledged commit
is on the disk (with WAL's usual NORMAL, a power failure may undo the last commits; SQLite docs, "PRAGMA
synchronous").
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from pillows.errors import ConfigError, RetryableError, StateLostError
from pillows.serial_worker import SerialWorker
from pillows.transports.sqlite.errors import to_pillow_error

P = ParamSpec("P")
T = TypeVar("T")


class SqliteWorker(SerialWorker):
    """The connection that a transport owns. Call everything but `run` in a function given to `run`.

    Args:
        path: the file.
        busy_timeout_seconds: how long a statement waits for another process's lock.
    """

    def __init__(self, path: Path, *, busy_timeout_seconds: float) -> None:
        super().__init__(self._interrupt_statement)
        self._path = path
        self._busy_timeout_seconds = busy_timeout_seconds
        self._db: sqlite3.Connection | None = None
        self._inode: tuple[int, int] = (0, 0)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread when its turn comes; return its result or raise its error.

        Raises:
            PillowError: an error of SQLite; see `to_pillow_error`.
        """
        try:
            return super().run(work, *args, **kwargs)
        except sqlite3.Error as error:
            raise to_pillow_error(error, self._path) from error

    def open(self) -> None:
        """Open the file, which is created when it is missing; reopen it when it is open.

        Raises:
            ConfigError: SQLite is too old, or cannot keep the journal that we need.
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
        self._inode = self._get_inode()

    def close(self) -> None:
        """Close the file if it is open."""
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction: committed at the end of the block, rolled back when it raises.

        Raises:
            RetryableError: the file is not open, or the caller has given up.
            StateLostError: the file is not the one that was opened.
        """
        if self._db is None:
            raise RetryableError("The database is not open.")
        db = self._db
        self._check_same_file()
        if db.in_transaction:  # left by a rollback that failed
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
    def read(self) -> Iterator[sqlite3.Connection]:
        """Open another connection that only reads, whether the file is open here or not."""
        with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            yield db

    def check_cancelled(self) -> None:
        """Raise an error if the caller has given up.

        Raises:
            RetryableError: the caller has given up.
        """
        if self.is_cancelled:
            raise RetryableError("The write was cancelled.")

    def _interrupt_statement(self) -> None:
        if self._db is not None:
            self._db.interrupt()

    def _check_same_file(self) -> None:
        # A file that was moved or deleted under an open connection accepts every write and keeps none.
        if self._inode != self._get_inode():
            raise StateLostError(
                f"{self._path} was moved, deleted or replaced while pillowd wrote to it.",
                remedy="restore it and restart the pillow, or `pillowd checkpoint reset KEY` for a new file",
            )

    def _get_inode(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return (-1, -1)
        return found.st_dev, found.st_ino
