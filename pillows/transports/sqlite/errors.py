"""What errors of SQLite mean: for a document, and for the pillow."""

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

# Result codes by what must be done (SQLite docs, "Result and Error Codes"); extended codes carry the
# primary one in their lowest byte.
_LATER = {
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
_OF_THE_ROW = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}


def is_of_the_row(error: sqlite3.Error) -> bool:
    """Whether it is the row's fault: another row can be written, this one never."""
    # Without a code it was raised by Python's binding of a parameter (a list into a text column).
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _OF_THE_ROW


def unbound(rows: Iterable[Row], table: Table) -> str:
    """Which column is given what SQLite has no value for; empty where none is.

    Python's own error only counts the parameters of a statement.
    """
    for row in map(decode, rows):
        for column in table.columns:
            if wrong := _wrong(column.value(row)):
                return f"Column {column.name!r} of table {table.name!r} cannot take {wrong}."
    return ""


def _wrong(value: Any) -> str:
    if isinstance(value, str):
        return "" if _is_unicode(value) else "a text that is no Unicode"
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**63 else "a number of more than 64 bits"
    if value is None or isinstance(value, float | bytes):
        return ""
    kind = JSON_KINDS.get(type(value), type(value).__name__)
    return f"a value of the kind {kind} (a jsonb column can)"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def translated(error: sqlite3.Error, path: Path) -> PillowError:
    """What an error of the database at `path` means for the pillow."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _LATER:
        return RetryableError(f"SQLite: {error} ({path}).")
    if code in _BROKEN:
        return FatalError(
            f"{path} is no SQLite database, or a damaged one: {error}.",
            remedy="restore or remove the file, then `pillowd checkpoint reset` fills it anew",
        )
    if code in _NO_ACCESS:
        return AccessError(
            f"{path} cannot be opened for writing: {error}.",
            remedy="make its folder, and let the daemon's user write to folder and file",
        )
    return FatalError(f"SQLite refuses what pillowd does with {path}: {error}.")
