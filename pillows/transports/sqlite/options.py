"""Settings of an SQLite file, and of one table in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pillows.options import Duration, Options
from pillows.transports.common.addresses import to_file_address
from pillows.transports.common.columns import TableOutput, parse_columns
from pillows.transports.sqlite.statements import TYPES


def _check_free(table: str) -> str:
    if table.lower().startswith(("sqlite_", "pillowd_")):
        raise ValueError(
            f"{table!r}: names that begin with sqlite_ or pillowd_ are reserved; choose another name"
        )
    return table


def _check_type(text: str) -> str:
    try:
        (column,) = parse_columns({"column": text})
    except ValueError:
        raise ValueError(f"{text!r} is not a path and a type, such as 'address.city text'") from None
    if column.type.lower() not in TYPES:
        raise ValueError(f"SQLite has no type {column.type!r}; use one of {', '.join(TYPES)}")
    return text


_Column = Annotated[str, AfterValidator(_check_type)]


def _check_distinct(columns: dict[str, str]) -> dict[str, str]:
    parse_columns(columns)
    first: dict[str, str] = {}
    for name in columns:
        if (other := first.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other!r} and {name!r} are one name in SQLite; rename one of them")
    return columns


class SqliteConnection(Options):
    """The database file.

    Attributes:
        path: the file; it is created when missing, its folder is not.
        busy_timeout: how long a write waits for another process's lock before it is retried, or stopped.
        tombstone_ttl: how long a deleted document's version is remembered.
    """

    path: Path
    busy_timeout: Duration = 2.0
    tombstone_ttl: Duration = 30 * 86400.0


class SqliteOutput(TableOutput):
    """One output that is a table.

    Attributes:
        table, columns, many, deletes, deleted_column: see `TableOutput`.
    """

    table: Annotated[str, AfterValidator(_check_free)] = Field(min_length=1)
    columns: Annotated[
        dict[str, Annotated[str, AfterValidator(_check_type)]], AfterValidator(_check_distinct)
    ] = Field(default_factory=dict)

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """Return the table's address, with its file; SQLite ignores the case of names."""
        return frozenset({("sqlite", to_file_address(connection.path), self.table_name.lower())})
