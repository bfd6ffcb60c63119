r"""Documents as lines of COPY's text format, without parsing what came as JSON.

A line is `_id, _rev, _version` and the values of the output's columns. A whole document goes from the
bytes of the source into the line of its `doc` column by escaping backslashes, nothing else.

PostgreSQL stores every character but U+0000. It is stored as U+0001 `0`, and U+0001 as U+0001 `1`:

    stored.replace("\x010", "\0").replace("\x011", "\x01")      # left to right, to have it back

U+0001 serves because JSON always writes it as `\u0001`: both characters are found by one search of
the raw bytes for `\u000`, and hardly any document has either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pillows.errors import PermanentError
from pillows.models import DocumentRows, Row
from pillows.transports.common.columns import Column, encode, pick

_NULL = b"\\N"
# What COPY's text format reads as something else (PostgreSQL docs, "COPY", File Formats).
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
_SUSPECT = re.compile(rb"\\u000[01]")
# Every backslash escape of a JSON text in turn, so that the second half of `\\` begins none.
_ESCAPES = re.compile(rb"\\(?:u000([01])|.)", re.DOTALL)
_STORED = re.compile("\x01([01])")


def storable(text: str) -> str:
    """A text without U+0000, which PostgreSQL cannot store; see the module for the way back."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\0011").replace("\0", "\0010")
    return text


def restored(stored: str) -> str:
    """A text as it was before `storable`."""
    if "\1" in stored:
        return _STORED.sub(lambda found: "\0" if found[1] == "0" else "\1", stored)
    return stored


def storable_json(raw: bytes) -> bytes:
    r"""A JSON text in which no string has `\u0000`; see the module for the way back."""
    return _ESCAPES.sub(_storable_escape, raw) if _SUSPECT.search(raw) else raw


def _storable_escape(found: re.Match[bytes]) -> bytes:
    return found[0] if found[1] is None else b"\\u0001" + found[1]


def header(document: DocumentRows, write_version: int) -> bytes:
    """The values that every line of a document begins with.

    Raises:
        PermanentError: the id or revision is no text that UTF-8 could take.
    """
    id, rev = document.id, document.rev
    if not (_is_plain(id) and _is_plain(rev)):
        id, rev = _escaped_text(id), _escaped_text(rev)
    return _encoded(f"{id}\t{rev}\t{write_version}\t")


def lines(head: bytes, rows: Sequence[Row], columns: Sequence[Column], *, many: bool) -> list[bytes]:
    """The lines of one document's rows in one table.

    Args:
        head: the document's `header`.
        rows: its rows in this table's output.
        columns: the table's columns; none where the whole row goes into `doc`.
        many: the table takes any number of rows a document.

    Raises:
        PermanentError: the rows do not fit the table, or a value has no form that it could take.
    """
    if not many and len(rows) > 1:
        raise PermanentError(
            f"The document has {len(rows)} rows in an output of one row a document (`many: true` takes more)."
        )
    if columns:
        return [head + b"\t".join(_values(row, columns)) + b"\n" for row in rows]
    return [head + _whole(row) + b"\n" for row in rows]


def absent(head: bytes, columns: Sequence[Column]) -> bytes:
    """The line that says of a document that it has no row in a table."""
    return head + b"\t".join([_NULL] * (len(columns) or 1)) + b"\n"


def _whole(row: Row) -> bytes:
    raw = bytes(row) if isinstance(row, msgspec.Raw) else encode(row)
    # `replace` finds nothing faster than `in` does, and gives the same object back then.
    escaped = raw.replace(b"\\", b"\\\\")
    if escaped is not raw:
        escaped = storable_json(raw).replace(b"\\", b"\\\\")
    # In a JSON text these only ever stand between values, where a blank means the same.
    return escaped.replace(b"\n", b" ").replace(b"\t", b" ").replace(b"\r", b" ")


def _values(row: Row, columns: Sequence[Column]) -> list[bytes]:
    picked = zip(pick(row, columns), columns, strict=True)
    return [_NULL if value is None else _value(value, column) for value, column in picked]


def _value(value: Any, column: Column) -> bytes:
    text = value if isinstance(value, str) else _written(value)
    if column.is_json:
        text = storable_json(text.encode()).decode()
    return _encoded(text if _is_plain(text) else _escaped_text(text))


def _is_plain(text: str) -> bool:
    """Whether nothing in it has to be escaped: so are most ids, revisions and values."""
    return text.isprintable() and "\\" not in text


def _escaped_text(text: str) -> str:
    return storable(text).translate(_COPY_ESCAPES)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PermanentError(f"A text has half of a surrogate pair: {error.reason}.") from error


def _written(value: Any) -> str:
    """A value as PostgreSQL reads it; what its column's type does not take is the server's error."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray):
        return f"\\x{value.hex()}"
    if isinstance(value, list | tuple):
        return "{" + ",".join([_element(one) for one in value]) + "}"
    if isinstance(value, Mapping):
        return encode(value).decode()
    try:
        return str(value)
    except ValueError as error:  # an integer of more digits than Python writes
        raise PermanentError(f"A number cannot be written: {error}.") from error


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return _written(value)
    text = value if isinstance(value, str) else _written(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
