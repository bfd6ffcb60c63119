"""Translate SQLite's errors: some concern one row, others the whole target."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pillows.errors import AccessError, FatalError, PillowError, RetryableError
from pillows.models import Row
from pillows.stages.conversions import JSON_KINDS
from pillows.transports.common.columns import decode
from pillows.transports.sqlite.statements import Table

# Result codes by remedy (SQLite docs, "Result and Error Codes"); the lowest byte of an extended code is
# the primary one.
_RETRYABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_INTERRUPT,
}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ACCESS = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}
_ROW_ERRORS = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}


def is_row_error(error: sqlite3.Error) -> bool:
    """Return whether the row is at fault: it can never be written, but another row can."""
    # An error without a code comes from Python's binding of a parameter (a list into a text column).
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _ROW_ERRORS


def find_unbindable(rows: Iterable[Row], table: Table) -> str:
    """Return which column has a value that SQLite cannot hold; empty if none has.

    Python's own error only gives the number of the parameter.
    """
    for row in map(decode, rows if table.columns else ()):
        for column in table.columns:
            if problem := _describe_unbindable(column.value(row)):
                return f"Column {column.name!r} of table {table.name!r} cannot take {problem}."
    return ""


def _describe_unbindable(value: Any) -> str:
    if isinstance(value, str):
        return "" if _is_unicode(value) else "a text that is not valid Unicode"
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**63 else "a number of more than 64 bits"
    if value is None or isinstance(value, float):
        return ""
    kind = JSON_KINDS.get(type(value), type(value).__name__)
    return f"a value of the kind {kind} (a jsonb column can)"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_pillow_error(error: sqlite3.Error, path: Path) -> PillowError:
    """Return an error of the database at `path` as one of ours."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _RETRYABLE:
        return RetryableError(f"SQLite: {error} ({path}).")
    if code in _BROKEN:
        return FatalError(
            f"{path} is not an SQLite database, or is damaged: {error}.",
            remedy="restore or remove the file, then `pillowd checkpoint reset KEY` to fill it again",
        )
    if code in _NO_ACCESS:
        return AccessError(
            f"{path} cannot be opened for writing: {error}.",
            remedy="create its folder, and let the daemon's user write to folder and file",
        )
    return FatalError(f"SQLite rejects a statement of pillowd on {path}: {error}.")
