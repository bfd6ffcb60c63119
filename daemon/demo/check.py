"""Compares the demo's target with its source, without going through pillowd."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]

#: What differs: table or file, and the id.
Difference = tuple[str, str]


def compare(documents: Mapping[str, Document], database: Path, lines: Path) -> list[Difference]:
    """What is missing, stale or too much in the tables and in the JSON lines.

    Args:
        documents: the live documents of the source, by id.
        database: the SQLite file.
        lines: the folder of JSON lines.
    """
    if not database.exists():
        return [("clinic.sqlite", "")]
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            stored = {table: _read(connection, table) for table in _EXPECTED}
    except sqlite3.OperationalError as error:  # the tables are not there yet
        return [(str(error), "")]
    found = [
        (table, str(row[0])) for table in _EXPECTED for row in _difference(documents, table, stored[table])
    ]
    return found + _compare_lines(documents, lines)


def _patients(document: Document) -> list[tuple[Any, ...]]:
    if document["kind"] != "patient":
        return []
    return [(document["_id"], document["name"], document["address"]["village"], document["phone"])]


def _visits(document: Document) -> list[tuple[Any, ...]]:
    if document["kind"] != "visit":
        return []
    return [(document["_id"], document["patient_id"], document["reason"], document["weight_kg"])]


def _prescriptions(document: Document) -> list[tuple[Any, ...]]:
    return [(document["_id"], p["drug"], p["days"]) for p in document.get("prescriptions", [])]


_EXPECTED = {
    "patients": (_patients, "select _id, name, village, phone from patients"),
    "visits": (_visits, "select _id, patient_id, reason, weight_kg from visits"),
    "prescriptions": (_prescriptions, "select _id, drug, days from prescriptions"),
}


def _read(connection: sqlite3.Connection, table: str) -> Counter[tuple[Any, ...]]:
    return Counter(connection.execute(_EXPECTED[table][1]).fetchall())


def _difference(
    documents: Mapping[str, Document], table: str, stored: Counter[tuple[Any, ...]]
) -> Counter[tuple[Any, ...]]:
    rows_of = _EXPECTED[table][0]
    wanted = Counter(row for document in documents.values() for row in rows_of(document))
    return (wanted - stored) + (stored - wanted)


def _compare_lines(documents: Mapping[str, Document], folder: Path) -> list[Difference]:
    """The last line of each id must be the document as it is now."""
    last: dict[str, Any] = {}
    for file in sorted(folder.glob("clinic*")):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            last[entry["_id"]] = None if entry.get("_deleted") else entry["_rev"]
    wanted: dict[str, Any] = {id: document["_rev"] for id, document in documents.items()}
    ids = {id for id in wanted.keys() | last.keys() if wanted.get(id) != last.get(id)}
    return [("lines", id) for id in sorted(ids)]
