"""Rows that a table of inferred columns surely takes, whatever the next document looks like.

Columns are inferred from a sample, so a later document may have something else in such a field: a text
where all others have a number. That is no reason to leave the document out. The column stays empty for
it, and the column `doc` has the document whole, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: SQLite's integers, and PostgreSQL's bigint.
_INT64 = 2**63
#: PostgreSQL's numeric takes far more digits; JSON's readers do not.
_NUMERIC = 10**1000


class Fitting:
    """The transform of a mirror: a document's fields beside the document, without what fits no column.

    Args:
        types: column -> its SQL type. The columns have their fields' names.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self._fits = [(name, FITS[type]) for name, type in types.items()]

    def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document's row."""
        row = {**document, "doc": document}
        for name, fits in self._fits:
            value = row.get(name)
            if value is not None and not fits(value):
                row[name] = None
        return row


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64


def _is_whole_or_boolean(value: Any) -> bool:
    return isinstance(value, bool) or _is_whole(value)


def _is_number_of_64_bits(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_NUMERIC < value < _NUMERIC


#: SQL type -> whether a value other than null fits. SQLite has its `any` for numbers, `integer` for booleans.
FITS: Mapping[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "boolean": _is_boolean,
    "numeric": _is_number,
    "any": _is_number_of_64_bits,
    "integer": _is_whole_or_boolean,
    "bigint": _is_whole,
    "double precision": _is_number_of_64_bits,
}
