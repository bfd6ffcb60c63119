"""The demo's "target equals source": nothing that differs escapes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.demo import data
from tests.demo.comparison import compare

PATIENT, VISIT, REPORT = "patient:00001", "visit:00002", "stock:00003"


class Target:
    """The rows that pillowd would have written for some of the demo's documents."""

    def __init__(self, folder: Path) -> None:
        self.database, self.lines = folder / "clinic.sqlite", folder / "lines"
        wanted = (PATIENT, VISIT, REPORT)
        found = [each | {"_rev": "1-a"} for each in data.documents() if each["_id"] in wanted]
        self.documents: dict[str, Any] = {each["_id"]: each for each in found}
        self.documents[VISIT]["prescriptions"] = [{"drug": "zinc", "days": 3}, {"drug": "ORS", "days": 5}]
        self.lines.mkdir()
        with closing(sqlite3.connect(self.database)) as db, db:
            self._fill(db)
        for document in self.documents.values():
            self.append(document, 2)

    def _fill(self, db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE patients (_id, _rev, name, born_on, village, phone)")
        db.execute("CREATE TABLE visits (_id, _rev, patient_id, visited_on, reason, weight_kg)")
        db.execute("CREATE TABLE prescriptions (_id, _row, drug, days)")
        patient, visit = self.documents[PATIENT], self.documents[VISIT]
        rest = (patient["born_on"], patient["address"]["village"], patient["phone"])
        db.execute("INSERT INTO patients VALUES (?, '1-a', ?, ?, ?, ?)", (PATIENT, patient["name"], *rest))
        fields = [visit[name] for name in ("patient_id", "visited_on", "reason", "weight_kg")]
        db.execute("INSERT INTO visits VALUES (?, '1-a', ?, ?, ?, ?)", (VISIT, *fields))
        db.execute("INSERT INTO prescriptions VALUES (?, 0, 'zinc', 3), (?, 1, 'ORS', 5)", (VISIT, VISIT))

    def append(self, document: dict[str, Any], version: int, *, deleted: bool = False) -> None:
        head = {"output": "archive", "_id": document["_id"], "_rev": document["_rev"], "_version": version}
        line = head | ({"_deleted": True} if deleted else {"doc": document})
        with (self.lines / "clinic").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.database)) as db, db:
            assert db.execute(statement).rowcount == 1

    def differences(self) -> list[tuple[str, str]]:
        return compare(self.documents, self.database, self.lines)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


def test_what_is_equal_does_not_differ(target: Target) -> None:
    assert target.differences() == []


COLUMNS = {
    "patients": ("_rev", "name", "born_on", "village", "phone"),
    "visits": ("_rev", "patient_id", "visited_on", "reason", "weight_kg"),
    "prescriptions": ("_row", "drug", "days"),
}


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in COLUMNS.items() for c in columns])
def test_every_column_is_compared(target: Target, table: str, column: str) -> None:
    target.change(f"UPDATE {table} SET {column} = 'x' WHERE rowid = 1")
    assert target.differences()
    assert {each[0] for each in target.differences()} == {table}


@pytest.mark.parametrize("table", COLUMNS)
def test_a_row_that_is_missing_or_too_much_is_found(target: Target, table: str) -> None:
    target.change(f"INSERT INTO {table} (_id) VALUES ('stray')")
    assert target.differences() == [(table, "stray")]
    target.change(f"DELETE FROM {table} WHERE _id = 'stray'")
    target.change(f"DELETE FROM {table} WHERE rowid = 1")
    assert len(target.differences()) == 1


LINES: dict[str, Callable[[Target], None]] = {
    "an older revision": lambda t: t.append(t.documents[REPORT] | {"_rev": "0-x"}, 3),
    "another body under the same revision": lambda t: t.append(t.documents[REPORT] | {"on_hand": {}}, 3),
    "a deletion of what is there": lambda t: t.append(t.documents[REPORT], 3, deleted=True),
    "a document that is not there": lambda t: t.append({"_id": REPORT + "0", "_rev": "1-a"}, 1),
}


@pytest.mark.parametrize("change", LINES.values(), ids=LINES)
def test_a_line_that_says_something_else_is_found(target: Target, change: Callable[[Target], None]) -> None:
    change(target)
    ((place, id),) = target.differences()
    assert (place, id.startswith(REPORT)) == ("lines", True)


def test_a_document_without_a_line_is_found(target: Target) -> None:
    file = target.lines / "clinic"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if REPORT not in line))
    assert target.differences() == [("lines", REPORT)]


def test_the_line_of_the_highest_version_counts(target: Target) -> None:
    """After a failure, older states may be written again, behind the newest one."""
    target.append(target.documents[REPORT] | {"_rev": "0-x"}, 1)
    assert target.differences() == []


def test_a_deleted_document_needs_its_last_line_only(target: Target) -> None:
    report = target.documents.pop(REPORT)
    assert target.differences() == [("lines", REPORT)]
    target.append(report | {"_rev": "2-b"}, 3, deleted=True)
    assert target.differences() == []


def test_tables_that_are_not_there_yet_differ(tmp_path: Path) -> None:
    assert compare({}, tmp_path / "clinic.sqlite", tmp_path) == [("clinic.sqlite", "")]
    sqlite3.connect(tmp_path / "clinic.sqlite").close()
    assert compare({}, tmp_path / "clinic.sqlite", tmp_path)


def test_a_line_that_is_half_written_is_not_there_yet(target: Target) -> None:
    with (target.lines / "clinic").open("ab") as file:
        file.write('{"output":"archive","_id":"ä'.encode()[:-1])
    assert target.differences() == []
