"""What a PostgreSQL error means for a pillow, decided by SQLSTATE and never by the message.

Messages are translated by the server (`lc_messages`) and reworded between versions; the five letters
of the SQLSTATE are not (PostgreSQL docs, "PostgreSQL Error Codes").
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TypeVar

import psycopg

from pillows.errors import AccessError, AwayError, ConfigError, PillowError, RetryableError

#: How much of a server's message is kept.
REASON_CHARACTERS = 500

# From the first quote to the last: the server translates messages, and quotes with them.
_QUOTED = re.compile("[\"'\u00ab\u201e\u201c\u300c].*[\"'\u00bb\u201c\u201d\u300d]", re.DOTALL)


_Value = TypeVar("_Value")


class Verdict(Enum):
    """Who has to do something about an error."""

    RETRY = auto()
    DEAD = auto()
    CONFIG = auto()
    ACCESS = auto()


# The longest prefix of an SQLSTATE that is listed here decides; what is not listed is CONFIG.
_VERDICTS = {
    "08": Verdict.RETRY,  # connection exceptions
    "22": Verdict.DEAD,  # data exceptions
    "23": Verdict.DEAD,  # constraints
    "25006": Verdict.RETRY,  # read-only: a standby until the failover is through
    "25P03": Verdict.RETRY,  # idle in transaction for too long
    "28": Verdict.ACCESS,  # authentication
    "2F": Verdict.DEAD,  # a user's function on the row
    "38": Verdict.DEAD,
    "39": Verdict.DEAD,
    "40": Verdict.RETRY,  # serialization failure, deadlock, unknown outcome
    "44": Verdict.DEAD,  # check option of a view
    "53": Verdict.RETRY,  # disk full, out of memory, too many connections
    "54": Verdict.DEAD,  # a document beyond the server's limits (size, depth, index row)
    "55006": Verdict.RETRY,  # object in use
    "55P03": Verdict.RETRY,  # lock timeout
    "57": Verdict.RETRY,  # shutdown, starting up, statement timeout, cancelled
    "58": Verdict.RETRY,  # input or output errors of the server's system
    "P0": Verdict.DEAD,  # a user's trigger raised
    "XX": Verdict.RETRY,  # internal errors: nothing is known, so nothing is given up
}

_REMEDIES = {
    "3D": "create the database, or correct the dsn",
    "3F": "create the schema, or correct `schema`",
    "42501": "grant the role what the message names: CREATE on the schema, TEMPORARY on the database, "
    "SELECT, INSERT, UPDATE and DELETE on the tables",
    "42P01": "restart the pillow, which creates missing tables, then `checkpoint reset` it",
    "42703": "restart the pillow, which adds missing columns",
    "42704": "correct the column's type in `columns`",
}


def verdict(sqlstate: str | None) -> Verdict:
    """Who has to do something about an error of that SQLSTATE; without one the connection is lost."""
    if sqlstate is None:
        return Verdict.RETRY
    return _longest(_VERDICTS, sqlstate) or Verdict.CONFIG


def reason(error: psycopg.Error) -> str:
    """The server's own words for an error, without what they quote of a document."""
    message = error.diag.message_primary or str(error) or type(error).__name__
    return discreet(message, error.sqlstate)


def discreet(message: str, sqlstate: str | None) -> str:
    """A primary message without the value: only data exceptions (class 22) quote one, in quotes."""
    if (sqlstate or "").startswith("22"):
        message = _QUOTED.sub("...", message)
    return message.strip()[:REASON_CHARACTERS]


def translated(error: psycopg.Error, *, sqlstate: str | None = None) -> PillowError:
    """The pillow's error for one of PostgreSQL's.

    Args:
        error: what psycopg raised.
        sqlstate: where the error itself does not have it (while connecting).
    """
    state = error.sqlstate or sqlstate
    message = f"PostgreSQL: {reason(error)}" + (f" (SQLSTATE {state})." if state else ".")
    if state is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return ConfigError(message)
    found = verdict(state)
    if found is Verdict.ACCESS:
        return AccessError(message, remedy="correct user and password of the connection, or pg_hba.conf")
    if found is Verdict.CONFIG:
        return ConfigError(message, remedy=_longest(_REMEDIES, state or "") or "")
    if state is None or state.startswith(("08", "57P")):  # no connection, starting, stopping
        return AwayError(message)
    # A row's own error outside of the search for failing rows says nothing of the other rows.
    return RetryableError(message)


def _longest(by_prefix: dict[str, _Value], sqlstate: str) -> _Value | None:
    found = (by_prefix.get(sqlstate[:length]) for length in (5, 2))
    return next((value for value in found if value is not None), None)
