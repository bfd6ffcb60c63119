"""Compare the demo's target with its source, without going through pillowd."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]

#: Table or file, and the id.
Difference = tuple[str, str]


def compare(documents: Mapping[str, Document], database: Path, lines: Path) -> list[Difference]:
    """Return what is missing, stale or unexpected in the tables and in the JSON lines.

    Args:
        documents: the live documents of the source, by id.
        database: the SQLite file.
        lines: the folder of JSON lines.
    """
    if not database.exists():
        return [("clinic.sqlite", "")]
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            found = compare_tables(documents, lambda query: connection.execute(query).fetchall())
    except sqlite3.OperationalError as error:  # the tables are not there yet
        return [(str(error), "")]
    return found + _compare_lines(documents, lines)


def compare_tables(
    documents: Mapping[str, Document], read: Callable[[str], Sequence[tuple[Any, ...]]]
) -> list[Difference]:
    """Return what is missing, stale or unexpected in the tables.

    Args:
        documents: the live documents of the source, by id.
        read: returns the rows of a query.
    """
    stored = {table: Counter(read(query)) for table, (_, query) in _EXPECTED.items()}
    return [
        (table, str(row[0])) for table in _EXPECTED for row in _difference(documents, table, stored[table])
    ]


def _patients(document: Document) -> list[tuple[Any, ...]]:
    if document["kind"] != "patient":
        return []
    place = document["address"]["village"]
    return [(*_own(document), document["name"], document["born_on"], place, document["phone"])]


def _visits(document: Document) -> list[tuple[Any, ...]]:
    if document["kind"] != "visit":
        return []
    fields = ("patient_id", "visited_on", "reason", "weight_kg")
    return [(*_own(document), *(document[field] for field in fields))]


def _prescriptions(document: Document) -> list[tuple[Any, ...]]:
    prescribed = document.get("prescriptions", [])
    return [(document["_id"], number, p["drug"], p["days"]) for number, p in enumerate(prescribed)]


def _own(document: Document) -> tuple[str, str]:
    return document["_id"], document["_rev"]


_EXPECTED = {
    "patients": (_patients, "select _id, _rev, name, born_on, village, phone from patients"),
    "visits": (_visits, "select _id, _rev, patient_id, visited_on, reason, weight_kg from visits"),
    "prescriptions": (_prescriptions, "select _id, _row, drug, days from prescriptions"),
}


def _difference(
    documents: Mapping[str, Document], table: str, stored: Counter[tuple[Any, ...]]
) -> Counter[tuple[Any, ...]]:
    rows_of = _EXPECTED[table][0]
    wanted = Counter(row for document in documents.values() for row in rows_of(document))
    return (wanted - stored) + (stored - wanted)


def _compare_lines(documents: Mapping[str, Document], folder: Path) -> list[Difference]:
    """Compare each document with the line of its highest version."""
    counts: dict[str, Any] = {}
    for file in sorted(folder.glob("clinic*")):
        for line in file.read_bytes().split(b"\n")[:-1]:  # the last may be half written
            entry = json.loads(line)
            if entry["_version"] >= counts.get(entry["_id"], entry)["_version"]:
                counts[entry["_id"]] = entry
    said = {id: (entry["_rev"], entry["doc"]) for id, entry in counts.items() if not entry.get("_deleted")}
    wanted = {id: (document["_rev"], document) for id, document in documents.items()}
    ids = {id for id in wanted.keys() | said.keys() if wanted.get(id) != said.get(id)}
    return [("lines", id) for id in sorted(ids)]
