"""Infer the columns of a table from a sample of documents.

A field becomes a column if it has one kind of simple value in the whole sample: text, number or boolean. All
numbers are one kind, since a field that has held 10 a thousand times may hold 9.99 one day. The column `doc`
has the whole document, so no other field is lost. A later value that does not fit its column leaves it
empty (see `FitColumns`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from typing import Any

import msgspec

from daemon.config.plugins import FIT_COLUMNS
from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError
from pillows.couch.http.response import TooLargeError
from pillows.couch.options import CouchConnection
from pillows.errors import AwayError, RetryableError

#: Size of the sample of the first documents, and of that of the newest.
SAMPLE_DOCUMENTS = 500
#: Most inferred columns; PostgreSQL allows 1,600, but nobody can read so wide a table.
MAX_COLUMNS = 100
#: Column with the whole document.
WHOLE = "doc"

#: Field names that need no quotes as columns.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
#: System columns of every table in PostgreSQL.
_SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
#: Definition of the column with the whole document.
_WHOLE_COLUMN = f"{WHOLE} jsonb"


#: Largest answer with all documents of a sample at once; otherwise fewer documents are read one by one.
MAX_SAMPLE_BYTES = 16 * 2**20
#: Most of them then, and the largest one; a larger one is left out.
MAX_SINGLE_DOCUMENTS = 100
MAX_SINGLE_BYTES = 256 * 1024


class _Row(msgspec.Struct):
    id: str = ""
    doc: dict[str, Any] | None = None


class _Rows(msgspec.Struct):
    rows: list[_Row] = []
    results: list[_Row] = []


def sample_documents(connection: CouchConnection, database: str) -> list[dict[str, Any]]:
    """Return the first documents of a database by id, and the newest, without design documents.

    Memory is bounded, and a document that cannot be read, such as one that is nested too deeply, is left out:
    its values are in no column, and the column `doc` has it whole.

    Raises:
        PillowError: the database cannot be read.
    """
    queries = (
        ("_all_docs", f"limit={SAMPLE_DOCUMENTS}"),
        ("_changes", f"limit={SAMPLE_DOCUMENTS}&descending=true"),
    )
    found: dict[str, dict[str, Any]] = {}
    with closing(CouchClient(connection)) as couch:
        for view, query in queries:
            path = f"{couch.path(database, view)}?{query}"
            documents = _read_together(couch, path)
            if documents is None:
                documents = _read_singly(couch, database, path)
            found |= {each["_id"]: each for each in documents if not each.get("_deleted")}
    return [each for id, each in found.items() if not id.startswith("_design/")]


def _read_together(couch: CouchClient, path: str) -> list[dict[str, Any]] | None:
    """Return the documents of a view; None if they are too large, or one of them cannot be read."""
    try:
        answer = couch.json("GET", f"{path}&include_docs=true", _Rows, max_bytes=MAX_SAMPLE_BYTES)
    except AwayError:
        raise
    except (TooLargeError, RetryableError):
        return None
    return [row.doc for row in (*answer.rows, *answer.results) if row.doc]


def _read_singly(couch: CouchClient, database: str, path: str) -> list[dict[str, Any]]:
    """Return those documents of a view that can be read separately."""
    answer = couch.json("GET", path, _Rows)
    found = []
    for row in (*answer.rows, *answer.results)[:MAX_SINGLE_DOCUMENTS]:
        with suppress(TooLargeError, RetryableError, RejectedError):  # a deleted one is rejected, too
            where = couch.path(database, row.id)
            found.append(couch.json("GET", where, dict[str, Any], max_bytes=MAX_SINGLE_BYTES))
    return found


def infer_columns(documents: Iterable[Mapping[str, Any]], column_types: Mapping[str, str]) -> dict[str, str]:
    """Return column -> `"path type"` for a table of such documents, the most frequent fields first.

    Args:
        documents: a sample.
        column_types: of the target; see `MirrorSupport.COLUMN_TYPES`.

    Returns:
        The columns and the whole document; empty if there is no such field, for the document alone.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for document in documents:
        for name, value in document.items():
            if value is not None:
                kinds[name].add(_get_kind(value))
                counts[name] += 1
    types: dict[str, str] = {}
    taken = {WHOLE, *_SYSTEM}
    for name, _ in counts.most_common():
        type = column_types.get("".join(kinds[name]))  # several kinds have none
        # `Name` and `name` are the same column in SQL.
        if type and _NAME.fullmatch(name) and name.lower() not in taken and len(types) < MAX_COLUMNS:
            types[name] = type
            taken.add(name.lower())
    return to_definitions(types)


def to_definitions(types: Mapping[str, str]) -> dict[str, str]:
    """Return column -> `"path type"` for fields and the whole document; empty without fields.

    Args:
        types: column, named like its field -> its SQL type.
    """
    columns = {name: f"{name} {type}" for name, type in types.items()}
    return columns | {WHOLE: _WHOLE_COLUMN} if columns else {}


def make_transform(columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the setting `transform` that such columns need; empty for columns without the whole document."""
    if columns.get(WHOLE) != _WHOLE_COLUMN:
        return {}
    types = {name: text.partition(" ")[2] for name, text in columns.items() if name != WHOLE}
    return {"transform": {"name": FIT_COLUMNS, "args": {"types": types}}}


def _get_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"
