"""An SQLite file as the tests see it: read and disturbed by connections of their own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import TailKey
from pillows.transports.common.columns import TableOutput
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.target import KEY, Target

OUTPUTS = {
    "docs": TableOutput(table="docs"),
    "other": TableOutput(table="other docs"),
    "typed": TableOutput(table="typed", columns={"n": "n integer"}),
    "lines": TableOutput(table="lines", many=True),
}


class SqliteTarget(Target):
    transactional = True
    tells_others = True
    busy_faults = ("locked", "full")

    def __init__(self, path: Path, outputs: Mapping[str, TableOutput] = OUTPUTS) -> None:
        self.path = path
        self.outputs = outputs
        self.last: SqliteTransport | None = None

    def transport(self, *outputs: str, key: TailKey = KEY) -> SqliteTransport:
        connection = SqliteConnection(path=str(self.path), busy_timeout="100ms")
        self.last = SqliteTransport("local", key, connection, {name: self.outputs[name] for name in outputs})
        return self.last

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        options = self.outputs[output]
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

    def write_version(self, output: str, id: str) -> int | None:
        options = self.outputs[output]
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
            full: Any = self.last._worker._db
            pages = full.execute("PRAGMA page_count").fetchone()[0]
            full.execute(f"PRAGMA max_page_count = {pages}")
            with suppress(sqlite3.OperationalError):
                for n in range(10_000):
                    full.execute("REPLACE INTO docs VALUES (?, '1-a', 1, '{}')", (f"filler{n}",))
            yield
            full.execute("PRAGMA max_page_count = 1000000")
