"""What errors of SQLite mean: for a document, and for the pillow."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pillows.errors import AccessError, FatalError, PillowError, RetryableError

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
