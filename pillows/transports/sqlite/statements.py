"""The tables of the SQLite transport: their definitions, their checks, and their statements.

An output with one row a document is a table `(_id primary key, _rev, _version, columns ...)`, whose
`_version` is the document's write version. A child table (`many`) is `(_id, _row, columns ...)`; the write
versions of its documents, and of every document without a row, are in `pillowd_document`.

Tables are STRICT (SQLite 3.37), so a value that does not fit its column is an error that names both,
where an ordinary table would store `'abc'` in an integer column.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from pillows import strict_json
from pillows.errors import ConfigError, PermanentError
from pillows.models import KEY_SEPARATOR, DocumentRows, Row, key_range
from pillows.transports.common.builds import name_table
from pillows.transports.common.columns import Column, TableOutput, pick

#: Type of a configured column -> its type in a STRICT table. Dates stay text, as in JSON.
TYPES = {
    **dict.fromkeys(("text", "varchar", "date", "time", "timestamp", "timestamptz", "uuid"), "TEXT"),
    **dict.fromkeys(("json", "jsonb"), "TEXT"),
    **dict.fromkeys(("integer", "int", "bigint", "smallint", "boolean", "bool"), "INTEGER"),
    **dict.fromkeys(("real", "float", "double", "double precision"), "REAL"),
    "any": "ANY",
}

#: pillowd's own tables. `fence` is random per start: a write under another's fence fails. `guard` names the
#: output in `pillowd_document`: it goes with the table when that changes its name; see `SqliteSwitch`.
OWN_TABLES = """
CREATE TABLE IF NOT EXISTS pillowd_document (
    output TEXT NOT NULL,
    _id TEXT NOT NULL,
    version INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (output, _id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pillowd_checkpoint (
    pillow TEXT NOT NULL,
    source TEXT NOT NULL,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    fence TEXT NOT NULL,
    seq TEXT NOT NULL,
    checkpoint TEXT NOT NULL,
    PRIMARY KEY (pillow, source)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pillowd_build (
    output TEXT PRIMARY KEY,
    build INTEGER NOT NULL,
    guard TEXT NOT NULL
) WITHOUT ROWID
"""

# UTC, as `2026-03-01T12:00:00.000Z`.
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

_SINGLE = {"_id": "TEXT", "_rev": "TEXT", "_version": "INTEGER"}
_MANY = {"_id": "TEXT", "_row": "INTEGER"}

# An index's definition, up to its columns. SQLite keeps the text as it was given.
_NAME = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|`[^`]*`|\[[^\]]*\]|[\w$]+)"""
_INDEX = re.compile(rf"^CREATE\s+(?:UNIQUE\s+)?INDEX\s+{_NAME}\s+ON\s+{_NAME}\s*", re.IGNORECASE)

# SQLite allowed 999 parameters per statement before 3.32. 500 ids cost no more per id than 5,000.
_IDS_PER_QUERY = 500


def create_own_tables(db: sqlite3.Connection) -> None:
    """Create those of pillowd's own tables that are missing; `executescript` would end a transaction."""
    for statement in OWN_TABLES.split(";"):
        db.execute(statement)


def quote_name(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Table:
    """One output's table.

    Args:
        output: its settings.
        connection: the source's connection, if documents of several databases come; see `Transport.share`.

    Raises:
        ConfigError: SQLite has no type of a column, or the name is reserved.
    """

    def __init__(self, output: TableOutput, *, connection: str | None = None) -> None:
        if output.table.lower().startswith(("sqlite_", "pillowd_")):
            raise ConfigError(
                f"Table {output.table!r}: names that begin with sqlite_ or pillowd_ are reserved."
            )
        self.name = output.table_name
        self.live_name = output.table
        self.build = output.build
        self._guard = ""
        self.many = output.many
        self.columns = output.parsed
        own = _MANY if self.many else _SINGLE
        self.mark = output.mark
        self._derived = [] if connection is None else [_derive_source(connection)]
        self._wanted = own | ({c.name: _type(self.name, c) for c in self.columns} or {"doc": "TEXT"})
        table, names = quote_name(self.name), ", ".join(map(quote_name, self._wanted))
        # Table and column names come from the configuration and are quoted; values are always bound.
        self._insert = f"REPLACE INTO {table} ({names}) VALUES ({', '.join('?' * len(self._wanted))})"  # noqa: S608
        self._delete = f"DELETE FROM {table} WHERE _id = ?"  # noqa: S608
        marked = "" if self.many else ", _rev = ?, _version = ?"
        mark = quote_name(self.mark)
        self._mark = f"UPDATE {table} SET {mark} = coalesce({mark}, {_NOW}){marked} WHERE _id = ?"  # noqa: S608
        self._unmarked = f" AND {mark} IS NULL" if self.mark else ""
        if self.mark:
            self._wanted[self.mark] = "TEXT"
        self._any = f"SELECT EXISTS (SELECT 1 FROM {table})"  # noqa: S608
        self._select_versions = f"SELECT _id, _version FROM {table} WHERE _id IN "  # noqa: S608

    @property
    def _shown(self) -> list[str]:
        """The columns of a row's values; of a child table with the row's number first."""
        configured = [column.name for column in self.columns] or ["doc"]
        return ["_row", *configured] if self.many else configured

    @property
    def json_places(self) -> frozenset[int]:
        """Where the values in `read_rows` are JSON texts."""
        columns = {column.name for column in self.columns if column.is_json} or (
            set() if self.columns else {"doc"}
        )
        return frozenset(place for place, name in enumerate(self._shown) if name in columns)

    def create(self, db: sqlite3.Connection) -> None:
        """Create the table, or add the columns that it lacks.

        Raises:
            ConfigError: something else has its name, or a column has another type.
        """
        self._guard = ""
        by_name = "SELECT type FROM sqlite_master WHERE name = ? COLLATE NOCASE"
        kind = db.execute(by_name, (self.name,)).fetchone()
        if kind is None:
            db.execute(self._definition())
            if not self.build.live:
                self._register(db)
            return
        columns = db.execute(f"PRAGMA table_info({quote_name(self.name)})").fetchall()
        found = {column[1].lower(): column[2].upper() for column in columns}
        self._check(kind[0], found, {column[1] for column in columns if column[5]})
        if not self.build.live and self.guard(db) == self.name:
            raise ConfigError(
                f"Table {self.name!r} exists, and is not a build of {self.live_name!r}.",
                remedy=f"rename it: build {self.build.number} needs its name; or drop it if it is unused",
            )
        for name, type in self._wanted.items():
            if name.lower() not in found:
                db.execute(f"ALTER TABLE {quote_name(self.name)} ADD COLUMN {quote_name(name)} {type}")

    def guard(self, db: sqlite3.Connection, *, again: bool = False) -> str:
        """Return the guard, by which `pillowd_document` names the table.

        Args:
            db: in a transaction.
            again: look it up again. A writer need not: its tail stands still while builds are exchanged, and
                opens the table anew. A reader meets exchanges.
        """
        if again or not self._guard:
            known = "SELECT 1 FROM sqlite_master WHERE name = 'pillowd_build'"  # an older pillowd has none
            query = "SELECT guard FROM pillowd_build WHERE output = ?"
            found = db.execute(query, (self.name,)).fetchone() if db.execute(known).fetchone() else None
            self._guard = found[0] if found else self.name
        return self._guard

    def exists(self, db: sqlite3.Connection) -> bool:
        """Return whether a table or view has its name."""
        by_name = "SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE"
        return db.execute(by_name, (self.name,)).fetchone() is not None

    def is_empty(self, db: sqlite3.Connection) -> bool:
        """Return whether the table is empty."""
        return not db.execute(self._any).fetchone()[0]

    def get_greatest_version(self, db: sqlite3.Connection) -> int | None:
        """Return the greatest write version of all documents, with and without rows; None if none."""
        kept = "SELECT MAX(version) AS v FROM pillowd_document WHERE output = ?"
        own = "" if self.many else f" UNION ALL SELECT MAX(_version) FROM {quote_name(self.name)}"  # noqa: S608
        found: int | None = db.execute(f"SELECT MAX(v) FROM ({kept}{own})", (self.guard(db),)).fetchone()[0]  # noqa: S608
        return found

    def get_versions(self, db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """Return the stored state of these documents; unknown ones are left out."""
        found: dict[str, StoredVersion] = {}
        for some in _split(ids):
            marks = f"({', '.join('?' * len(some))})"
            kept = "SELECT _id, version FROM pillowd_document WHERE output = ? AND _id IN "
            for id, version in db.execute(kept + marks, (self.guard(db), *some)):
                found[id] = StoredVersion(version, has_record=True, has_rows=self.many)
            if not self.many:
                for id, version in db.execute(self._select_versions + marks, some):
                    found[id] = StoredVersion(version, has_record=id in found, has_rows=True)
        return found

    def stored(
        self,
        db: sqlite3.Connection,
        between: tuple[str, str | None],
        limit: int,
        ids: Sequence[str] | None,
    ) -> list[tuple[str, str | None, int | None]]:
        """List id, revision and write version of documents with rows: of `ids`, or a page between two ids."""
        table = quote_name(self.name)
        which, values = (
            (
                f"_id > ? AND (?2 IS NULL OR _id < ?2){self._unmarked} ORDER BY _id LIMIT ?3",
                (*between, limit),
            )
            if ids is None
            else (f"_id IN ({', '.join('?' * len(ids))}){self._unmarked}", tuple(ids))
        )
        if not self.many:
            return db.execute(f"SELECT _id, _rev, _version FROM {table} WHERE {which}", values).fetchall()  # noqa: S608
        return db.execute(
            "SELECT t._id, NULL, d.version"  # noqa: S608 - names are quoted
            f" FROM (SELECT DISTINCT _id FROM {table} WHERE {which}) t LEFT JOIN pillowd_document d"
            " ON d.output = ? AND d._id = t._id ORDER BY t._id",
            (*values, self.guard(db)),
        ).fetchall()

    def read_rows(
        self, db: sqlite3.Connection, ids: Sequence[str]
    ) -> dict[str, tuple[int | None, list[tuple[Any, ...]]]]:
        """Return the stored documents: id -> write version, and each row's values in order."""
        table, names = quote_name(self.name), ", ".join(f"t.{quote_name(name)}" for name in self._shown)
        version = "d.version" if self.many else "t._version"
        joined = " LEFT JOIN pillowd_document d ON d.output = ? AND d._id = t._id" if self.many else ""
        order = " ORDER BY t._id, t._row" if self.many else ""
        found: dict[str, tuple[int | None, list[tuple[Any, ...]]]] = {}
        for some in _split(ids):
            marks = ", ".join("?" * len(some))
            query = f"SELECT t._id, {version}, {names} FROM {table} t{joined} WHERE t._id IN ({marks}){order}"  # noqa: S608
            for id, held, *values in db.execute(
                query, ((self.guard(db),) if self.many else ()) + tuple(some)
            ):
                found.setdefault(id, (held, []))[1].append(tuple(values))
        return found

    def put(
        self,
        db: sqlite3.Connection,
        document: DocumentRows,
        rows: Sequence[Row],
        write_version: int,
        known: StoredVersion | None,
        *,
        first_pass: bool,
    ) -> None:
        """Make the table hold exactly these rows of a document.

        Args:
            db: a connection in a transaction.
            document: the document.
            rows: all of them, as the transform gave them.
            write_version: what to store for the document.
            known: its stored state; None if it is not stored.
            first_pass: leave no record of a document that has no rows and never had.

        Raises:
            PermanentError: this output cannot hold the rows.
            sqlite3.Error: a value does not fit its column, or something else is wrong.
        """
        if len(rows) > 1 and not self.many:
            raise PermanentError(
                f"Table {self.name!r} takes one row per document, not {len(rows)} (many: true)."
            )
        if self.mark and not document.has_rows:
            of_row = () if self.many else (document.rev, write_version)
            if db.execute(self._mark, (*of_row, document.id)).rowcount and not self.many:
                return  # the marked row keeps the version
        elif (self.mark and self.many) or (known and known.has_rows and (self.many or not rows)):
            db.execute(self._delete, (document.id,))
        for number, row in enumerate(rows):
            own = (document.id, number) if self.many else (document.id, document.rev, write_version)
            db.execute(self._insert, (*own, *self._values(row)))
        if self.many or not rows:
            if rows or known or not first_pass:
                db.execute(
                    "REPLACE INTO pillowd_document VALUES (?, ?, ?, ?)",
                    (self.guard(db), document.id, write_version, None if rows else int(time.time())),
                )
        elif known and known.has_record:
            db.execute(
                "DELETE FROM pillowd_document WHERE output = ? AND _id = ?", (self.guard(db), document.id)
            )

    def sweep(
        self, db: sqlite3.Connection, floor: int, kept: Collection[str], database: str | None = None
    ) -> int:
        """Remove (or mark) rows and records with a write version below `floor`, except of `kept` documents.

        Args:
            db: a connection in a transaction.
            floor: the least write version that stays.
            kept: ids.
            database: only its rows, if documents of several databases come.

        Returns:
            The number of rows removed or marked.
        """
        within, bounds = ("", ()) if database is None else (" AND _id > ? AND _id < ?", key_range(database))
        db.create_function("pillowd_kept", 1, frozenset(kept).__contains__, deterministic=True)
        table = quote_name(self.name)
        lower = f"output = ? AND version < ?{within} AND NOT pillowd_kept(_id)"
        marking = f"UPDATE {table} SET {quote_name(self.mark)} = {_NOW}"  # noqa: S608
        sweep = marking if self.mark else f"DELETE FROM {table}"  # noqa: S608
        if self.many:
            old = f"SELECT _id FROM pillowd_document WHERE {lower}"  # noqa: S608
            swept = db.execute(
                f"{sweep} WHERE _id IN ({old}){self._unmarked}", (self.guard(db), floor, *bounds)
            )
        else:
            old = f"_version < ?{within} AND NOT pillowd_kept(_id)"
            swept = db.execute(f"{sweep} WHERE {old}{self._unmarked}", (floor, *bounds))
        db.execute(f"DELETE FROM pillowd_document WHERE {lower}", (self.guard(db), floor, *bounds))  # noqa: S608
        return swept.rowcount

    def forget(self, db: sqlite3.Connection, before: float) -> None:
        """Remove records of documents that were deleted before that wall-clock second."""
        forget = "DELETE FROM pillowd_document WHERE output = ? AND deleted_at < ?"
        db.execute(forget, (self.guard(db), int(before)))

    def _register(self, db: sqlite3.Connection) -> None:
        """Give the new table of another build a guard that no table ever had, and the live one's indexes."""
        guard = f"{self.name} {secrets.token_hex(4)}"
        db.execute("REPLACE INTO pillowd_build VALUES (?, ?, ?)", (self.name, self.build.number, guard))
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL AND tbl_name = ?"
        for name, text in db.execute(f"{query} COLLATE NOCASE", (self.live_name,)).fetchall():
            wanted = _INDEX.sub("", text, count=1)
            unique = "UNIQUE " if text.upper().startswith("CREATE UNIQUE") else ""
            new = quote_name(name_table(name, self.build.number))
            with suppress(sqlite3.OperationalError):  # it is of a column that this build has not
                db.execute(f"CREATE {unique}INDEX {new} ON {quote_name(self.name)} {wanted}")

    def _values(self, row: Row) -> tuple[Any, ...]:
        return pick(row, self.columns) if self.columns else (strict_json.encode(row).decode(),)

    def _definition(self) -> str:
        columns = [f"{quote_name(name)} {type}" for name, type in self._wanted.items()] + self._derived
        key = "_id, _row" if self.many else "_id"
        return f"CREATE TABLE {quote_name(self.name)} ({', '.join(columns)}, PRIMARY KEY ({key})) STRICT"

    def _check(self, kind: str, found: dict[str, str], key: set[str]) -> None:
        own = _MANY if self.many else _SINGLE
        wanted_key = {"_id", "_row"} if self.many else {"_id"}
        if kind != "table" or not own.keys() <= found.keys() or key != wanted_key:
            raise ConfigError(
                f"{kind} {self.name!r} exists, but does not fit this output"
                f" (columns {', '.join(own)}; primary key {', '.join(sorted(wanted_key))}).",
                remedy=f"choose another name, or run: DROP {kind.upper()} {quote_name(self.name)};",
            )
        for name, type in self._wanted.items():
            if (actual := found.get(name.lower(), type)) != type:
                raise ConfigError(
                    f"Column {name!r} of table {self.name!r} is {actual}, but is configured as {type}.",
                    remedy=f"run: ALTER TABLE {quote_name(self.name)} DROP COLUMN {quote_name(name)};"
                    " then `pillowd checkpoint reset KEY` to fill it again",
                )


class StoredVersion:
    """The version that a table has stored for a document.

    Args:
        version: the stored write version.
        has_record: `pillowd_document` has a row for it.
        has_rows: the table may hold rows of it.
    """

    __slots__ = ("has_record", "has_rows", "write_version")

    def __init__(self, write_version: int, *, has_record: bool, has_rows: bool) -> None:
        self.write_version = write_version
        self.has_record = has_record
        self.has_rows = has_rows


def _derive_source(connection: str) -> str:
    """Return the definition of a column with the source of a row whose `_id` is `database:id`."""
    beginning = f"'{connection}/'"  # a connection's name holds no quote
    database = f"substr(_id, 1, instr(_id, '{KEY_SEPARATOR}') - 1)"
    return f'"_source" TEXT GENERATED ALWAYS AS ({beginning} || {database}) VIRTUAL'


def _split(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_PER_QUERY):
        yield ids[start : start + _IDS_PER_QUERY]


def _type(table: str, column: Column) -> str:
    try:
        return TYPES[column.type.lower()]
    except KeyError:
        raise ConfigError(
            f"Column {column.name!r} of table {table!r}: SQLite has no type {column.type!r}.",
            remedy=f"use one of {', '.join(TYPES)}",
        ) from None
