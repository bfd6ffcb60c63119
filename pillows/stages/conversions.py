"""Makes values of the types that a target's columns want, or says clearly why one cannot be.

null stays null. What cannot be converted without losing anything is refused: `12.5` is not an integer and
`maybe` no boolean; such a document becomes a dead letter that names the field and the type, never the
value. Only a fraction in a text becomes the nearest double, which is what JSON has, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from pillows.errors import PermanentError

#: Converts a value other than None; raises ValueError or the like where it cannot.
Conversion = Callable[[Any], Any]

_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
_NO_FRACTION = re.compile(r"\s*([+-]?\d+)\.0*\s*")
_DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}


def convert(name: str, type: str, value: Any) -> Any:
    """Return a field's value as that type.

    Raises:
        PermanentError: it cannot be converted.
    """
    if value is None:
        return None
    try:
        return CONVERSIONS[type](value)
    except (ValueError, TypeError, OverflowError, OSError, msgspec.MsgspecError) as error:
        kind = JSON_KINDS.get(value.__class__, value.__class__.__name__)
        raise PermanentError(f"The field {name!r} has a {kind} that is not a valid {type}.") from error


def integer(value: Any) -> int:
    """Return a whole number: 12, 12.0, "12"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError


def number(value: Any) -> int | float:
    """Return a finite number: 12, 12.5, "12.5", "1e3"; a fraction is the nearest double."""
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return value


def _read(text: str) -> int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _DECIMAL.fullmatch(text):
        raise ValueError
    nearest = float(text)
    if whole := _NO_FRACTION.fullmatch(text):
        exact = int(whole[1])
        return nearest if nearest == exact else exact
    return nearest


def text(value: Any) -> str:
    """Return a text; anything else as its JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def boolean(value: Any) -> bool:
    """Return true or false: also of 1, 0, and the words that PostgreSQL takes ("yes", "n", "true", ...)."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def day(value: Any) -> str:
    """Return a date as `2026-03-01`, from an ISO 8601 date or timestamp, in the timestamp's own zone."""
    if not isinstance(value, str):
        raise TypeError
    stripped = value.strip()
    found = date.fromisoformat(stripped) if len(stripped) <= 10 else datetime.fromisoformat(stripped).date()
    return found.isoformat()


def timestamp(value: Any) -> str:
    """Return a moment as `2026-03-01T12:00:00+00:00`.

    Taken are ISO 8601 (without a zone it is UTC), and the milliseconds since 1970 of JavaScript's
    `Date.now()`.
    """
    if isinstance(value, str):
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return datetime.fromtimestamp(value / 1000, UTC).isoformat()


def json(value: Any) -> Any:
    """Return any value; a text is read as JSON."""
    return msgspec.json.decode(value) if isinstance(value, str) else value


#: The types by their names in configuration.
CONVERSIONS: Final[Mapping[str, Conversion]] = {
    "integer": integer,
    "number": number,
    "text": text,
    "boolean": boolean,
    "date": day,
    "timestamp": timestamp,
    "json": json,
}

#: Python type -> name of the JSON type.
JSON_KINDS: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "text",
    list: "list",
    dict: "object",
}
