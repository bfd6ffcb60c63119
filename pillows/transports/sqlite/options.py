"""What an operator may set for a table in an SQLite file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pillows.transports.common.addresses import to_file_address
from pillows.transports.common.columns import TableOutput, parse_columns
from pillows.transports.sqlite.statements import TYPES


def _free(table: str) -> str:
    if table.lower().startswith(("sqlite_", "pillowd_")):
        raise ValueError(f"{table!r}: names with sqlite_ and pillowd_ are taken; choose another name")
    return table


def _typed(text: str) -> str:
    try:
        (column,) = parse_columns({"column": text})
    except ValueError:
        raise ValueError(f"{text!r} is not a path and a type, such as 'address.city text'") from None
    if column.type.lower() not in TYPES:
        raise ValueError(f"SQLite has no type {column.type!r}; use one of {', '.join(TYPES)}")
    return text


def _distinct(columns: dict[str, str]) -> dict[str, str]:
    parse_columns(columns)
    first: dict[str, str] = {}
    for name in columns:
        if (other := first.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other!r} and {name!r} are one name to SQLite; give one of them another name")
    return columns


class SqliteOutput(TableOutput):
    """One output that is a table.

    Attributes:
        table, columns, many: see `TableOutput`.
    """

    table: Annotated[str, AfterValidator(_free)] = Field(min_length=1)
    columns: Annotated[dict[str, Annotated[str, AfterValidator(_typed)]], AfterValidator(_distinct)] = Field(
        default_factory=dict
    )

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """The table in its file; names that differ in case only are one to SQLite."""
        return frozenset({("sqlite", to_file_address(connection.path), self.table.lower())})
