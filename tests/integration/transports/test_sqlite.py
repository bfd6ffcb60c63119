"""The SQLite transport against real files, read back with connections of the test's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoints import TailKey
from pillows.transports._columns import TableOutput
from pillows.transports.sqlite import SqliteConnection, SqliteTransport
from tests.conformance import TransportConformance
from tests.targets import KEY, Target

OUTPUTS = {
    "docs": TableOutput(table="docs"),
    "other": TableOutput(table="other docs"),
    "typed": TableOutput(table="typed", columns={"n": "n integer"}),
    "lines": TableOutput(table="lines", many=True),
}


class SqliteTarget(Target):
    transactional = True
    busy_faults = ("locked", "full")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: SqliteTransport | None = None

    def transport(self, *outputs: str, key: TailKey = KEY) -> SqliteTransport:
        connection = SqliteConnection(path=str(self.path), busy_timeout="100ms")
        self.last = SqliteTransport("local", key, connection, {name: OUTPUTS[name] for name in outputs})
        return self.last

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        options = OUTPUTS[output]
        found: dict[str, list[dict[str, Any]]] = {}
        with closing(sqlite3.connect(self.path)) as db:
            db.row_factory = sqlite3.Row
            for row in db.execute(f'SELECT * FROM "{options.table}" ORDER BY _id, rowid'):
                doc = dict(row)
                doc.pop("_row", None)
                found.setdefault(row["_id"], []).append(
                    msgspec.json.decode(doc["doc"]) if "doc" in doc else doc
                )
        return found

    def guard(self, output: str, id: str) -> int | None:
        options = OUTPUTS[output]
        with closing(sqlite3.connect(self.path)) as db:
            found = db.execute(
                "SELECT version FROM pillowd_document WHERE output = ? AND _id = ?", (options.table, id)
            ).fetchall()
            if not options.many:
                rows = db.execute(f'SELECT _version FROM "{options.table}" WHERE _id = ?', (id,))
                found += rows.fetchall()
        assert len(found) <= 1, "one guard a document"
        return found[0][0] if found else None

    def open_connections(self) -> int:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return sum(link.startswith(str(self.path)) for link in links)

    def restart(self) -> None:
        """There is no server; a file that is opened anew is all there is."""

    @contextmanager
    def busy(self, fault: str) -> Iterator[None]:
        if fault == "locked":
            with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                yield
        else:
            # A full disk is met where SQLite asks for another page.
            db = self.last._db
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages}")
            with suppress(sqlite3.OperationalError):
                for n in range(10_000):
                    db.execute("REPLACE INTO docs VALUES (?, '1-a', 1, '{}')", (f"filler{n}",))
            yield
            db.execute("PRAGMA max_page_count = 1000000")


class TestSqliteConformance(TransportConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> SqliteTarget:
        return SqliteTarget(tmp_path / "target.db")
