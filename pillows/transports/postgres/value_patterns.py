"""Patterns for values that certainly fit their columns, without asking the server.

They only select a path: rows that do not match go through the staging table, where the server checks each
value. If the server refuses a row that matches, the whole batch goes there. So a pattern may be narrower than
its type, and a pattern that is too wide only costs time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DATE = (
    r"[12]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:Z|[+-](?:0\d|1[0-3]):?[0-5]\d)?"

#: A type as the server spells it, without a length -> a pattern of its values.
_PATTERNS = {
    "smallint": r"-?\d{1,4}",
    "integer": r"-?\d{1,9}",
    "bigint": r"-?\d{1,18}",
    "real": r"-?\d{1,30}(?:\.\d{1,30})?",
    "double precision": r"-?\d{1,200}(?:\.\d{1,100})?",
    "numeric": r"-?\d{1,1000}(?:\.\d{1,1000})?",
    "boolean": "true|false",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "date": _DATE,
    "timestamp without time zone": f"{_DATE}[T ]{_TIME}",
    "timestamp with time zone": f"{_DATE}[T ]{_TIME}",
}
_ANY = r"[^\t\n]*"
_LENGTH = re.compile(r"\((\d+)(?:,(\d+))?\)")


def make_value_pattern(types: Mapping[str, str]) -> re.Pattern[bytes]:
    """Return the pattern of a line's values that surely fit, from the first configured column to its end.

    Args:
        types: the configured columns and their types, as the server spells them.
    """
    values = [rf"(?:\\N|{_make_pattern(type)})" for type in types.values()]
    return re.compile(("\t".join(values) + "\n").encode())


def _make_pattern(type: str) -> str:
    length = _LENGTH.search(type)
    base = _LENGTH.sub("", type)
    if length and base in {"character varying", "character"}:
        return rf"[^\t\n]{{0,{length[1]}}}"  # bytes, of which there are at least as many as characters
    if length and base == "numeric":
        # One digit less than there is room for: rounding may add one.
        whole = int(length[1]) - int(length[2] or 0) - 1
        return rf"-?\d{{1,{whole}}}(?:\.\d{{1,1000}})?" if whole > 0 else "0"
    return _PATTERNS.get(base, _ANY)
