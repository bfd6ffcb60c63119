"""Rows whose values surely fit their columns, told by how they are written, without asking the server.

Only a hint about the way: what is not plain goes by way of the staging table, where the server decides
of each value; what is plain and refused all the same makes the whole batch go there. So a pattern may
be narrower than its type, and one that is too wide costs time alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DATE = (
    r"[12]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:Z|[+-](?:0\d|1[0-3]):?[0-5]\d)?"

#: A type as the server spells it, without a length -> how values are written that it takes.
_FITTING = {
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


def plain(types: Mapping[str, str]) -> re.Pattern[bytes]:
    """What the values of a line look like that surely fit, from the first configured column to its end.

    Args:
        types: the configured columns and their types, as the server spells them.
    """
    values = [rf"(?:\\N|{_fitting(type)})" for type in types.values()]
    return re.compile(("\t".join(values) + "\n").encode())


def _fitting(type: str) -> str:
    length = _LENGTH.search(type)
    base = _LENGTH.sub("", type)
    if length and base in {"character varying", "character"}:
        return rf"[^\t\n]{{0,{length[1]}}}"  # bytes, which are no fewer than characters
    if length and base == "numeric":
        # One digit less than there is room for: rounding may add one.
        whole = int(length[1]) - int(length[2] or 0) - 1
        return rf"-?\d{{1,{whole}}}(?:\.\d{{1,1000}})?" if whole > 0 else "0"
    return _FITTING.get(base, _ANY)
