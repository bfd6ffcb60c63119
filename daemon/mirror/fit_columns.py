"""Fit rows to the inferred columns of a mirror.

Columns are inferred from a sample, so a later document may have a value of another type in such a field, for
example a text instead of a number. Its column then stays empty, and the column `doc` has the whole document.

Configurations call it `fit_columns`; see `daemon.config.plugins.OWN_FUNCTIONS`. Its path is in older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Bound of SQLite's integers and PostgreSQL's bigint.
_INT64 = 2**63
#: Bound of numeric; PostgreSQL takes far more digits, but readers of JSON do not.
_NUMERIC = 10**1000


class FitColumns:
    """The transform of a mirror: the fields that fit their columns, and the whole document.

    Args:
        types: column -> its SQL type; a column has the name of its field.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self._fits = [(name, FITS[type]) for name, type in types.items()]

    def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the row of a document."""
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


#: SQL type -> the test of a value other than null. In SQLite, numbers are `any` and booleans `integer`.
FITS: Mapping[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "boolean": _is_boolean,
    "numeric": _is_number,
    "any": _is_number_of_64_bits,
    "integer": _is_whole_or_boolean,
    "bigint": _is_whole,
    "double precision": _is_number_of_64_bits,
}
