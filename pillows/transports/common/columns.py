"""Columns of SQL targets: `columns: {name: "path type"}`, and picking values by it.

    columns = parse_columns({"name": "name text", "city": "address.city text", "tags": "tags jsonb"})
    values = pick(row, columns)         # ("Ada", "London", '["a","b"]')

A path is a dotted name (`address.city`, `form.@xmlns`), or a JMESPath expression
(`lines[0].price`, `length(lines)`). A missing path is NULL. The type is passed to the target as it is
written. Values of a JSON type are passed as JSON text, all others as decoded from JSON; a value that
does not fit the column's type is the target's error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import AfterValidator, Field

from pillows.errors import PermanentError
from pillows.models import Row
from pillows.options import OutputOptions
from pillows.stages.document_paths import Getter, getter

#: Columns that pillowd itself adds to every table.
RESERVED = frozenset({"_id", "_rev", "_version", "_row"})

# `text`, `double precision`, `numeric(10, 2)`, `timestamp(3) with time zone`, `text[]`, `public.mood`.
_TYPE = re.compile(r"[A-Za-z_][\w.]*( +[A-Za-z_]\w*)*( *\([\d, ]+\))?( +[A-Za-z_]\w*)*( *\[\d*\])*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: the column's name in the table.
        path: of its value in a row: a dotted name or a JMESPath expression.
        type: the SQL type, as written.
        get: picks the value out of a decoded row; None if it is missing.
    """

    name: str
    path: str
    type: str
    get: Getter

    @property
    def is_json(self) -> bool:
        """Whether values are stored as JSON text."""
        return self.type.lower() in {"json", "jsonb"}

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return the column's value in a decoded row, ready to be bound."""
        value = self.get(row)
        return encode(value).decode() if self.is_json and value is not None else value


def parse_columns(columns: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns that a mapping of names to `"path type"` describes, in its order.

    Raises:
        ValueError: a name is reserved, or a text is not a path and a type.
    """
    for name in columns:
        if not name.strip() or "\0" in name:
            raise ValueError(f"{name!r} cannot be a column's name")
        if name.lower() in RESERVED:
            raise ValueError(f"column {name!r} is reserved for pillowd; give yours another name")
    return tuple(_parse(name, text) for name, text in columns.items())


def pick(row: Row, columns: Sequence[Column]) -> tuple[Any, ...]:
    """Return the values of a row's columns, in their order.

    Raises:
        PermanentError: an expression does not fit this row, or a value has no JSON form.
    """
    decoded = decode(row)
    return tuple([column.value(decoded) for column in columns])


def decode(row: Row) -> Mapping[str, Any]:
    """Return a row as a mapping; the bytes of the source are parsed.

    Raises:
        PermanentError: it is not a JSON object.
    """
    if not isinstance(row, msgspec.Raw):
        return row
    try:
        return msgspec.json.decode(row, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PermanentError(f"The document is not a JSON object: {error}.") from error


def encode(value: Any) -> bytes:
    """Return a value, or a whole row, as JSON; bytes of the source stay as they are.

    Raises:
        PermanentError: it has no JSON form.
    """
    try:
        return bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise PermanentError(f"A value has no JSON form: {error}.") from error


def _check_columns(columns: dict[str, str]) -> dict[str, str]:
    parse_columns(columns)
    return columns


class TableOutput(OutputOptions):
    """One output that is an SQL table.

    Attributes:
        table: the table's name; it is created when missing.
        columns: column name -> `"path type"`. None: one JSON column `doc` with the whole row.
        many: a child table, in which a document has any number of rows, numbered in `_row`.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("table",)

    table: str = Field(min_length=1)
    columns: Annotated[dict[str, str], AfterValidator(_check_columns)] = Field(default_factory=dict)
    many: bool = False

    @property
    def parsed(self) -> tuple[Column, ...]:
        """The columns, parsed; empty where the whole row goes into `doc`."""
        return parse_columns(self.columns)


def _parse(name: str, text: str) -> Column:
    # Both halves may hold blanks ("lines[?a == 'b'] | [0] double precision"), so the path ends at the
    # first blank that has a path before it and a type behind it.
    for blank in re.finditer(r"\s+", text.strip()):
        path, type = text.strip()[: blank.start()], text.strip()[blank.end() :]
        if _TYPE.fullmatch(type) and (get := _getter(path)):
            return Column(name=name, path=path, type=type, get=get)
    raise ValueError(f"column {name!r}: {text!r} is not a path and a type, such as 'address.city text'")


def _getter(path: str) -> Getter | None:
    try:
        return getter(path)
    except ValueError:
        return None
