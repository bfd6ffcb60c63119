"""Columns for documents that nobody has described: inferred from a sample.

Every field that holds one kind of simple value in the whole sample becomes a column. Everything, also
what the sample does not show, is in the column `doc`, so a field that was not guessed is not lost.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import msgspec

from pillows.couch import Couch
from pillows.couch_options import CouchConnection

#: How many of the first and of the newest documents are looked at.
SAMPLE = 500
#: More columns than this help nobody; PostgreSQL allows 1,600.
MAX_COLUMNS = 100
#: The column that has the whole document.
WHOLE = "doc"

#: Names that can be columns without quotes in the mind of whoever reads the table.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_LARGEST = 2**63


class _Row(msgspec.Struct):
    doc: dict[str, Any] | None = None


class _Rows(msgspec.Struct):
    rows: list[_Row] = []
    results: list[_Row] = []


def sample(connection: CouchConnection, database: str) -> list[dict[str, Any]]:
    """Documents of a database: the first by their ids, and the newest; no design documents.

    Raises:
        PillowError: the database cannot be read.
    """
    queries = (
        ("_all_docs", f"limit={SAMPLE}&include_docs=true"),
        ("_changes", f"limit={SAMPLE}&include_docs=true&descending=true"),
    )
    found: dict[str, dict[str, Any]] = {}
    with closing(Couch(connection)) as couch:
        for view, query in queries:
            answer = couch.json("GET", f"{couch.path(database, view)}?{query}", _Rows)
            documents = [row.doc for row in (*answer.rows, *answer.results) if row.doc]
            found |= {each["_id"]: each for each in documents if not each.get("_deleted")}
    return [each for id, each in found.items() if not id.startswith("_design/")]


def infer(documents: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Column -> `"path type"` for a table of such documents, the most frequent fields first.

    Args:
        documents: a sample.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for document in documents:
        for name, value in document.items():
            if value is not None:
                kinds[name].add(_kind(value))
                counts[name] += 1
    columns: dict[str, str] = {}
    taken = {WHOLE}
    for name, _ in counts.most_common():
        type = _type(kinds[name])
        # SQL does not tell `Name` from `name`.
        if type and _NAME.fullmatch(name) and name.lower() not in taken and len(columns) < MAX_COLUMNS:
            columns[name] = f"{name} {type}"
            taken.add(name.lower())
    return columns | {WHOLE: "@ jsonb"}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -_LARGEST <= value < _LARGEST else "other"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def _type(kinds: set[str]) -> str | None:
    """The SQL type that takes all of these; None where none does."""
    if kinds == {"integer"}:
        return "bigint"
    if kinds <= {"integer", "number"}:
        return "double precision"
    return kinds.copy().pop() if kinds in ({"text"}, {"boolean"}) else None
