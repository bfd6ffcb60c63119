"""Two builds of tables in an SQLite file change names, with their guards and the checkpoints of their tails.

One transaction does it all, under `legacy_alter_table`: without that SQLite would change the name in views,
too, and they would show the old build for ever (SQLite docs, "ALTER TABLE"). Readers are never blocked: the
journal is WAL. What remembers the versions of deleted documents names a table by its guard, which goes with
the table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.transports.common.builds import BuildSwitch, Exchange, name_table, require_live
from pillows.transports.sqlite.connection import SqliteWorker
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.statements import Table, create_own_tables, quote_name

T = TypeVar("T")


class SqliteSwitch(BuildSwitch):
    """Lets two builds of tables change names.

    Args:
        key: of the tail.
        connection: the file.
        tables: the outputs; see `BuildSwitch`.
    """

    def __init__(self, key: TailKey, connection: SqliteConnection, tables: Sequence[Table]) -> None:
        self._key = key
        self._tables = tables
        self._worker = SqliteWorker(connection.path, busy_timeout_seconds=connection.busy_timeout)

    def list_obstacles(self, *, copies: bool = False) -> Sequence[str]:
        """Return the triggers of the tables, which an exchange would leave behind."""
        if copies:
            raise ConfigError(
                "SQLite does not copy rows.", remedy="drop what hangs on the table, and make it again"
            )
        return self._run(self._find_obstacles)

    def exchange(self, exchange: Exchange, *, copies: bool = False) -> None:
        """Exchange the names in one transaction; see `BuildSwitch.exchange`."""
        require_live((table.build for table in self._tables), live=True)
        if copies:
            self.list_obstacles(copies=True)
        self._run(lambda db: self._exchange(db, exchange))

    def drop(self) -> None:
        """Drop the tables of a build, its guards and its tail's checkpoint; see `BuildSwitch.drop`."""
        require_live((table.build for table in self._tables), live=False)
        self._run(self._drop)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._worker.run(self._transact, work)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._worker.open()
        try:
            with self._worker.transaction() as db:
                create_own_tables(db)
                # Has an effect within a transaction, too, and ends with the connection.
                db.execute("PRAGMA legacy_alter_table = ON")
                return work(db)
        finally:
            self._worker.close()

    def _find_obstacles(self, db: sqlite3.Connection) -> list[str]:
        found = []
        for table in self._tables:
            query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE"
            names = db.execute(f"{query} ORDER BY name", (table.live_name,)).fetchall()
            found += [f"trigger {name} hangs on {table.live_name}" for (name,) in names]
            known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
            if db.execute(known, (table.live_name,)).fetchone() is None:
                found.append(f"{table.live_name} does not exist: let the pillow run first")
        return found

    def _exchange(self, db: sqlite3.Connection, exchange: Exchange) -> None:
        if all(self._get_build(db, table) == exchange.incoming for table in self._tables):
            return
        if obstacles := self._find_obstacles(db):
            raise ConfigError(f"{'; '.join(obstacles)}.")
        for table in self._tables:
            live = table.live_name
            incoming, parked = name_table(live, exchange.incoming), name_table(live, exchange.outgoing)
            known = "SELECT 1 FROM pillowd_build WHERE output = ? AND build = ?"
            if db.execute(known, (incoming, exchange.incoming)).fetchone() is None:
                raise ConfigError(
                    f"{incoming} is not a build of {live}.",
                    remedy="`pillowd rebuild cancel KEY`, and rebuild again",
                )
            db.execute(f"ALTER TABLE {quote_name(live)} RENAME TO {quote_name(parked)}")
            db.execute(f"ALTER TABLE {quote_name(incoming)} RENAME TO {quote_name(live)}")
            db.execute(
                "INSERT OR IGNORE INTO pillowd_build VALUES (?, ?, ?)", (live, exchange.outgoing, live)
            )
            db.execute("DELETE FROM pillowd_build WHERE output = ?", (parked,))
            db.execute("UPDATE pillowd_build SET output = ? WHERE output = ?", (parked, live))
            db.execute(
                "UPDATE pillowd_build SET output = ?, build = ? WHERE output = ?",
                (live, exchange.incoming, incoming),
            )
        self._delete_checkpoint(db, exchange.parked)
        for before, after in ((exchange.key, exchange.parked), (exchange.shadow, exchange.key)):
            db.execute(
                "UPDATE pillowd_checkpoint SET pillow = ? WHERE pillow = ? AND source = ?",
                (after.pillow, before.pillow, before.source),
            )

    def _drop(self, db: sqlite3.Connection) -> None:
        for table in self._tables:
            known = db.execute("SELECT guard FROM pillowd_build WHERE output = ?", (table.name,)).fetchone()
            if known is None:
                continue  # gone already; a table of that name is somebody else's
            db.execute("DELETE FROM pillowd_document WHERE output = ?", known)
            db.execute("DELETE FROM pillowd_build WHERE output = ?", (table.name,))
            db.execute(f"DROP TABLE IF EXISTS {quote_name(table.name)}")
        self._delete_checkpoint(db, self._key)

    def _get_build(self, db: sqlite3.Connection, table: Table) -> int:
        found = db.execute("SELECT build FROM pillowd_build WHERE output = ?", (table.live_name,)).fetchone()
        return found[0] if found else 1

    def _delete_checkpoint(self, db: sqlite3.Connection, key: TailKey) -> None:
        db.execute("DELETE FROM pillowd_checkpoint WHERE pillow = ? AND source = ?", (key.pillow, key.source))
