"""PostgreSQL's errors as ours, classified by SQLSTATE and never by the message.

The server translates messages (`lc_messages`), and versions reword them; the five characters of the
SQLSTATE stay (PostgreSQL docs, "PostgreSQL Error Codes").
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TypeVar

import psycopg

from pillows.errors import AccessError, AwayError, ConfigError, PillowError, RetryableError

#: Characters of a server's message that are kept.
REASON_CHARACTERS = 500

# From the first quote to the last: the server translates messages, and quotes with them.
_QUOTED = re.compile("[\"'\u00ab\u201e\u201c\u300c].*[\"'\u00bb\u201c\u201d\u300d]", re.DOTALL)

# The functions of the server that raise what a user's code asks for: a name in C, which nobody translates.
_RAISING = frozenset({"exec_stmt_raise", "PLy_elog_impl", "plperl_call_perl_func", "throw_tcl_error"})
# "PL/pgSQL function check_case() line 3 at RAISE", whatever the language of the words between.
_PLACE = re.compile(r"PL/\S* \D*?([\w.\"]+\([\w ,.\"\[\]]*\))\D+(\d+)")

_Value = TypeVar("_Value")


class SqlstateVerdict(Enum):
    """The verdict on an error: who has to act on it."""

    RETRY = auto()
    DEAD = auto()
    CONFIG = auto()
    ACCESS = auto()


# The longest listed prefix of the SQLSTATE decides; an unlisted one is CONFIG.
_VERDICTS = {
    "08": SqlstateVerdict.RETRY,  # connection exceptions
    "22": SqlstateVerdict.DEAD,  # data exceptions
    "23": SqlstateVerdict.DEAD,  # constraints
    "25006": SqlstateVerdict.RETRY,  # read-only: a standby until the failover is through
    "25P03": SqlstateVerdict.RETRY,  # idle in transaction for too long
    "28": SqlstateVerdict.ACCESS,  # authentication
    "2F": SqlstateVerdict.DEAD,  # a user's function on the row
    "38": SqlstateVerdict.DEAD,
    "39": SqlstateVerdict.DEAD,
    "40": SqlstateVerdict.RETRY,  # serialization failure, deadlock, unknown outcome
    "44": SqlstateVerdict.DEAD,  # check option of a view
    "53": SqlstateVerdict.RETRY,  # disk full, out of memory, too many connections
    "54": SqlstateVerdict.DEAD,  # a document beyond the server's limits (size, depth, index row)
    "55006": SqlstateVerdict.RETRY,  # object in use
    "55P03": SqlstateVerdict.RETRY,  # lock timeout
    "57": SqlstateVerdict.RETRY,  # shutdown, starting up, statement timeout, cancelled
    "58": SqlstateVerdict.RETRY,  # input or output errors of the server's system
    "P0": SqlstateVerdict.DEAD,  # a user's trigger raised
    "XX": SqlstateVerdict.RETRY,  # internal errors: nothing is known, so nothing is given up
}

_REMEDIES = {
    "3D": "create the database, or correct the dsn",
    "3F": "create the schema, or correct `schema`",
    "42501": "grant the role what the message names: CREATE on the schema, TEMPORARY on the database, "
    "SELECT, INSERT, UPDATE and DELETE on the tables",
    "42P01": "restart the pillow, which creates missing tables, then `pillowd checkpoint reset KEY`",
    "42703": "restart the pillow, which adds missing columns",
    "42704": "correct the column's type in `columns`",
}


def classify_sqlstate(sqlstate: str | None) -> SqlstateVerdict:
    """Return the verdict on an SQLSTATE; None means that the connection was lost, so it is RETRY."""
    if sqlstate is None:
        return SqlstateVerdict.RETRY
    return _find_longest(_VERDICTS, sqlstate) or SqlstateVerdict.CONFIG


def is_row_refusal(error: Exception) -> bool:
    """Return whether the server refuses values of some rows, and might take the others."""
    return isinstance(error, psycopg.Error) and classify_sqlstate(error.sqlstate) is SqlstateVerdict.DEAD


def get_redacted_message(error: psycopg.Error) -> str:
    """Return the server's message without quoted values; where a user's function raised, its place alone."""
    if error.diag.source_function in _RAISING:
        place = _PLACE.search(error.diag.context or "")
        where = f"{place[1]} (line {place[2]})" if place else "a function or trigger"
        return f"{where} raised an error (SQLSTATE {error.sqlstate})"
    message = error.diag.message_primary or _join_lines(str(error)) or type(error).__name__
    return redact_values(message, error.sqlstate)


def _join_lines(message: str) -> str:
    """Return a message of libpq in one line, without its questions, which begin with a tab."""
    return "; ".join(line.strip() for line in message.splitlines() if line.strip() and line[0] != "\t")


def redact_values(message: str, sqlstate: str | None) -> str:
    """Return a primary message without its value: only data exceptions (class 22) quote one."""
    if (sqlstate or "").startswith("22"):
        message = _QUOTED.sub("...", message)
    return message.strip()[:REASON_CHARACTERS]


def to_pillow_error(error: psycopg.Error, *, sqlstate: str | None = None) -> PillowError:
    """Return an error of PostgreSQL as one of ours.

    Args:
        error: what psycopg raised.
        sqlstate: if the error itself has none (while connecting).
    """
    state = error.sqlstate or sqlstate
    message = f"PostgreSQL: {get_redacted_message(error)}" + (f" (SQLSTATE {state})." if state else ".")
    if state is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return ConfigError(message)
    found = classify_sqlstate(state)
    if found is SqlstateVerdict.ACCESS:
        return AccessError(message, remedy="correct user and password of the connection, or pg_hba.conf")
    if found is SqlstateVerdict.CONFIG:
        return ConfigError(message, remedy=_find_longest(_REMEDIES, state or "") or "")
    if state is None or state.startswith(("08", "57P")):  # no connection, starting, stopping
        return AwayError(message)
    # A row's error outside of the search for failing rows says nothing of the other rows.
    return RetryableError(message)


def _find_longest(by_prefix: dict[str, _Value], sqlstate: str) -> _Value | None:
    found = (by_prefix.get(sqlstate[:length]) for length in (5, 2))
    return next((value for value in found if value is not None), None)
