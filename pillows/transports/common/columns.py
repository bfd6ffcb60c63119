"""Columns of SQL targets: `columns: {name: "path type"}`, and picking values by it.

    columns = parse_columns({"name": "name text", "city": "address.city text", "tags": "tags jsonb"})
    values = pick(row, columns)         # ("Ada", "London", '["a","b"]')

A path is a dotted name (`address.city`, `form.@xmlns`), or a JMESPath expression
(`lines[0].price`, `length(lines)`). A missing path is NULL. The type is passed to the target as it is
written. Values of a JSON type are passed as JSON text, and so are lists and objects in other columns (a list
in an array column is an array); all others as decoded from JSON. A value that does not fit the column's type
is the target's error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from msgspec import Struct
from pydantic import AfterValidator, Field, model_validator

from pillows import strict_json
from pillows.errors import PermanentError
from pillows.models import Row
from pillows.options import OutputOptions
from pillows.stages.document_paths import Getter, getter
from pillows.strict_json import run_deeply
from pillows.transports.common.builds import name_table

#: Columns that pillowd itself adds to every table.
RESERVED = frozenset({"_id", "_rev", "_version", "_row"})

_NUMBERS = (int, bool, float)
_JSON = frozenset({"json", "jsonb"})
_TEXT = re.compile(r"(text|varchar|char|character|bpchar|citext)\b", re.IGNORECASE)
_SCALAR = re.compile(
    r"(integer|int|int[248]|bigint|smallint|boolean|bool|real|float|float[48]|double|numeric|decimal"
    r"|date|time|timetz|timestamp|timestamptz|uuid)\b",
    re.IGNORECASE,
)

# `text`, `double precision`, `numeric(10, 2)`, `timestamp(3) with time zone`, `text[]`, `public.mood`.
_TYPE = re.compile(r"[A-Za-z_][\w.]*( +[A-Za-z_]\w*)*( *\([\d, ]+\))?( +[A-Za-z_]\w*)*( *\[\d*\])*")


class Column(Struct, frozen=True, kw_only=True):
    """One column of a table.

    Attributes:
        name: the column's name in the table.
        path: of its value in a row: a dotted name or a JMESPath expression.
        type: the SQL type, as written.
        get: picks the value out of a decoded row; None if it is missing.
        is_json: whether values are stored as JSON text.
        is_text: whether the type holds texts only.
    """

    name: str
    path: str
    type: str
    get: Getter
    is_json: bool
    is_text: bool

    @property
    def is_array(self) -> bool:
        """Whether the type is an array type of the target: `text[]`, `integer array`."""
        return self.type.rstrip().endswith("]") or self.type.lower().endswith(" array")

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return the column's value in a decoded row, ready to be bound: a list only in an array column.

        Lists and objects become JSON text, and so do numbers in a text column; a Decimal keeps its digits.

        Raises:
            PermanentError: the value has no JSON form, or path or type does not fit it.
        """
        value = self.get(row)
        kind = type(value)
        if value is None:
            return None
        # JSON has a form for each text, whole number and boolean.
        if not self.is_json and (kind is str or ((kind is int or kind is bool) and not self.is_text)):
            return value
        text = strict_json.encode(value, self.path)
        if self.is_json:
            return text.decode()
        if isinstance(value, list | tuple | dict):
            return self._to_nested(value, text)
        if kind in _NUMBERS and not self.is_text:
            return value
        return msgspec.json.decode(text) if text.startswith(b'"') else text.decode()  # a date, or digits

    def _to_nested(self, value: Any, text: bytes) -> Any:
        if self.is_array and not isinstance(value, dict):
            return value
        if _SCALAR.match(self.type) is not None and not self.is_array:
            kind = "object" if isinstance(value, dict) else "list"
            raise PermanentError(
                f"Column {self.name!r} cannot take a value of the kind {kind} (a jsonb column can)."
            )
        return text.decode()


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
    """Return a row as a mapping. A row that is still raw JSON is parsed.

    Raises:
        PermanentError: the raw row is not a JSON object.
    """
    if not isinstance(row, msgspec.Raw):
        return row
    try:
        return run_deeply(lambda: msgspec.json.decode(row, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PermanentError(f"The document is not a JSON object: {error}.") from error


def _check_free_name(name: str) -> str:
    if not name.strip() or "\0" in name or name.lower() in RESERVED | {"_source", "doc"}:
        raise ValueError(f"{name!r} cannot be the name of this column; choose another name")
    return name


def _check_columns(columns: dict[str, str]) -> dict[str, str]:
    parse_columns(columns)
    return columns


class TableOutput(OutputOptions):
    """One output that is an SQL table.

    Attributes:
        table: the table's name; it is created when missing.
        columns: column name -> `"path type"`; if empty, one JSON column `doc` with the whole row.
        many: a child table, in which a document has any number of rows, numbered in `_row`.
        deletes: the treatment of rows of a document that was deleted, or has no rows in any output any more:
            `hard` removes them, `mark` keeps them, with the time in `deleted_column`.
        deleted_column: the name of the column with the time at which the row was marked as deleted, by the
            server's clock (SQLite: that of pillowd's machine), since CouchDB does not keep the time of a
            deletion; null in the row of a document that exists.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("table",)
    NEW_IN_DIGESTS: ClassVar[frozenset[str]] = frozenset({"deletes", "deleted_column"})

    table: str = Field(min_length=1)
    columns: Annotated[dict[str, str], AfterValidator(_check_columns)] = Field(default_factory=dict)
    many: bool = False
    deletes: Literal["hard", "mark"] = "hard"
    deleted_column: Annotated[str, AfterValidator(_check_free_name)] = Field("_deleted_at", max_length=63)

    @property
    def table_name(self) -> str:
        """The name of the table of the build: the configured one only if it is live."""
        return self.table if self.build.live else name_table(self.table, self.build.number)

    @property
    def mark(self) -> str:
        """The column that marks rows of deleted documents; empty if such rows are removed."""
        return self.deleted_column if self.deletes == "mark" else ""

    @model_validator(mode="after")
    def _check_mark(self) -> Self:
        if self.mark.lower() in {name.lower() for name in self.columns if self.mark}:
            raise ValueError(f"column {self.mark!r} marks deleted rows; set another `deleted_column`")
        return self

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
            is_json, is_text = type.lower() in _JSON, _TEXT.match(type) is not None
            return Column(name=name, path=path, type=type, get=get, is_json=is_json, is_text=is_text)
    raise ValueError(f"column {name!r}: {text!r} is not a path and a type, such as 'address.city text'")


def _getter(path: str) -> Getter | None:
    try:
        return getter(path)
    except ValueError:
        return None
