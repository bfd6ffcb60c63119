r"""Documents as lines of COPY's text format, without parsing JSON.

A line is `_id, _rev, _version` and the values of the output's columns. The bytes of a whole document
only have their backslashes escaped for its `doc` column.

PostgreSQL stores every character but U+0000. It is stored as U+0001 `0`, and U+0001 as U+0001 `1`:

    stored.replace("\x010", "\0").replace("\x011", "\x01")      # left to right

U+0001 is chosen because JSON always writes it as `\u0001`: one search of the raw bytes for `\u000` finds
both characters, and hardly any document has either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pillows import strict_json
from pillows.errors import PermanentError
from pillows.models import DocumentRows, Row
from pillows.transports.common.columns import Column, pick

_NULL = b"\\N"
# Special characters of COPY's text format (PostgreSQL docs, "COPY", File Formats).
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
_SUSPECT = re.compile(rb"\\u000[01]")
# Every backslash escape of a JSON text in turn, so that the second half of `\\` does not begin one.
_ESCAPES = re.compile(rb"\\(?:u000([01])|.)", re.DOTALL)
_STORED = re.compile("\x01([01])")


def to_storable(text: str) -> str:
    """Return a text without U+0000, which PostgreSQL cannot store; see the module for the way back."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\0011").replace("\0", "\0010")
    return text


def from_storable(stored: str) -> str:
    """Return a text as it was before `to_storable`."""
    if "\1" in stored:
        return _STORED.sub(lambda found: "\0" if found[1] == "0" else "\1", stored)
    return stored


def to_storable_json(raw: bytes) -> bytes:
    r"""Return a JSON text without `\u0000` in its strings; see the module for the way back."""
    return _ESCAPES.sub(_replace_escape, raw) if _SUSPECT.search(raw) else raw


def _replace_escape(found: re.Match[bytes]) -> bytes:
    return found[0] if found[1] is None else b"\\u0001" + found[1]


def encode_head(document: DocumentRows, write_version: int) -> bytes:
    """Return the values at the beginning of every line of a document.

    Raises:
        PermanentError: the id or revision has no UTF-8 form.
    """
    id, rev = document.id, document.rev
    if not _is_plain(id + rev):
        id, rev = _escape(id), _escape(rev)
    return _to_bytes(f"{id}\t{rev}\t{write_version}\t")


def encode_rows(head: bytes, rows: Sequence[Row], columns: Sequence[Column], *, many: bool) -> list[bytes]:
    """Return the lines of one document's rows in one table.

    Args:
        head: the document's, from `encode_head`.
        rows: its rows in this table's output.
        columns: the table's columns; none if the whole row goes into `doc`.
        many: the table takes any number of rows per document.

    Raises:
        PermanentError: the rows do not fit the table, or a value cannot be written.
    """
    if not many and len(rows) > 1:
        raise PermanentError(
            f"The document has {len(rows)} rows, but its output takes one per document (`many: true`)."
        )
    if columns:
        return [head + b"\t".join(_encode_values(row, columns)) + b"\n" for row in rows]
    return [head + _encode_whole(row) + b"\n" for row in rows]


def encode_absence(head: bytes, columns: Sequence[Column]) -> bytes:
    """Return the line of a document without a row in a table."""
    return head + b"\t".join([_NULL] * (len(columns) or 1)) + b"\n"


def _encode_whole(row: Row) -> bytes:
    return _escape_json(bytes(row) if isinstance(row, msgspec.Raw) else strict_json.encode(row))


def _escape_json(raw: bytes) -> bytes:
    # `replace` without a hit is faster than `in`, and returns the same object.
    escaped = raw.replace(b"\\", b"\\\\")
    if escaped is not raw:
        escaped = to_storable_json(raw).replace(b"\\", b"\\\\")
    # In JSON these occur only between values, where a blank means the same.
    return escaped.replace(b"\n", b" ").replace(b"\t", b" ").replace(b"\r", b" ")


def _encode_values(row: Row, columns: Sequence[Column]) -> list[bytes]:
    return list(map(_encode_value, pick(row, columns), columns))


def _encode_value(value: Any, column: Column) -> bytes:
    if value is None:
        return _NULL
    text = value if type(value) is str else _to_text(value)
    if column.is_json:
        return _escape_json(text.encode())
    return text.encode() if _is_plain(text) else _to_bytes(_escape(text))


def _is_plain(text: str) -> bool:
    """Return whether nothing has to be escaped, as in most ids, revisions and values; UTF-8 holds them."""
    return text.isprintable() and "\\" not in text


def _escape(text: str) -> str:
    return to_storable(text).translate(_COPY_ESCAPES)


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PermanentError(f"A text has half of a surrogate pair: {error.reason}.") from error


def _to_text(value: Any) -> str:
    """Return a value as PostgreSQL reads it; the server refuses it if it does not fit its column."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "{" + ",".join([_to_element(one) for one in value]) + "}"
    if not isinstance(value, int) and isinstance(value, Mapping):  # the second check is slow
        return strict_json.encode(value).decode()
    try:
        return str(value)
    except ValueError as error:  # an integer of more digits than Python writes
        raise PermanentError(f"A number cannot be written: {error}.") from error


def _to_element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return _to_text(value)
    text = value if isinstance(value, str) else _to_text(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
