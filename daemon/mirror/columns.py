"""Columns for documents that nobody has described: inferred from a sample.

Every field that holds one kind of simple value in the whole sample becomes a column: texts, numbers or
booleans. All numbers are one kind, since a field that has had 10 a thousand times has 9.99 one day.
Everything, also what the sample does not show, is in the column `doc`, so a field that was not guessed is
not lost; and what fits no column later leaves that column empty (see `Fitting`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import msgspec

from pillows.couch.client import CouchClient
from pillows.couch.options import CouchConnection

#: How many of the first and of the newest documents are looked at.
SAMPLE = 500
#: More columns than this help nobody; PostgreSQL allows 1,600.
MAX_COLUMNS = 100
#: The column that has the whole document.
WHOLE = "doc"

#: Names that can be columns without quotes in the mind of whoever reads the table.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
#: Columns that every table of PostgreSQL has for itself.
_SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
#: What the transform puts the document into, and the column's definition.
_WHOLE_COLUMN = f"{WHOLE} jsonb"


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
    with closing(CouchClient(connection)) as couch:
        for view, query in queries:
            answer = couch.json("GET", f"{couch.path(database, view)}?{query}", _Rows)
            documents = [row.doc for row in (*answer.rows, *answer.results) if row.doc]
            found |= {each["_id"]: each for each in documents if not each.get("_deleted")}
    return [each for id, each in found.items() if not id.startswith("_design/")]


def infer(documents: Iterable[Mapping[str, Any]], column_types: Mapping[str, str]) -> dict[str, str]:
    """Column -> `"path type"` for a table of such documents, the most frequent fields first.

    Args:
        documents: a sample.
        column_types: of the target; see `MirrorSupport.COLUMN_TYPES`.

    Returns:
        The columns and the whole document; empty, which is the document alone, where there are none.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for document in documents:
        for name, value in document.items():
            if value is not None:
                kinds[name].add(_kind(value))
                counts[name] += 1
    types: dict[str, str] = {}
    taken = {WHOLE, *_SYSTEM}
    for name, _ in counts.most_common():
        type = column_types.get("".join(kinds[name]))  # several kinds have none
        # SQL does not tell `Name` from `name`.
        if type and _NAME.fullmatch(name) and name.lower() not in taken and len(types) < MAX_COLUMNS:
            types[name] = type
            taken.add(name.lower())
    return described(types)


def described(types: Mapping[str, str]) -> dict[str, str]:
    """Column -> `"path type"` of columns that have their fields' names, and of the whole document.

    Args:
        types: column -> its type.
    """
    columns = {name: f"{name} {type}" for name, type in types.items()}
    return columns | {WHOLE: _WHOLE_COLUMN} if columns else {}


def fitting(columns: Mapping[str, str]) -> dict[str, Any]:
    """The transform that such columns need; none for those of an earlier version, which had no such thing."""
    if columns.get(WHOLE) != _WHOLE_COLUMN:
        return {}
    types = {name: text.partition(" ")[2] for name, text in columns.items() if name != WHOLE}
    return {"transform": {"python": "daemon.mirror.fit_columns:Fitting", "args": {"types": types}}}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"
