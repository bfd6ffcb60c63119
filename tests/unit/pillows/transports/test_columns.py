"""What `columns: {name: "path type"}` means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from pillows.errors import PermanentError
from pillows.transports.common.columns import TableOutput, decode, parse_columns, pick

ROW = {
    "name": "Ada",
    "address": {"city": "London", "none": None},
    "form": {"@xmlns": "urn:x", "case-id": 7},
    "lines": [{"sku": "s1", "n": 1}, {"sku": "s2", "n": 2}],
    "größe": 3,
}


@pytest.mark.parametrize(
    ("text", "path", "type", "value"),
    [
        ("name text", "name", "text", "Ada"),
        ("  name   text ", "name", "text", "Ada"),
        ("address.city text", "address.city", "text", "London"),
        ("address.none text", "address.none", "text", None),
        ("address.street.number integer", "address.street.number", "integer", None),
        ("name.deeper text", "name.deeper", "text", None),
        ("form.@xmlns varchar(20)", "form.@xmlns", "varchar(20)", "urn:x"),
        ("form.case-id numeric(10, 2)", "form.case-id", "numeric(10, 2)", 7),
        ("größe double precision", "größe", "double precision", 3),
        ("lines[0].sku text", "lines[0].sku", "text", "s1"),
        ("length(lines) bigint", "length(lines)", "bigint", 2),
        ("lines[?sku == 's2'].n | [0] int", "lines[?sku == 's2'].n | [0]", "int", 2),
        ("lines[*].sku text[]", "lines[*].sku", "text[]", ["s1", "s2"]),
        ("lines jsonb", "lines", "jsonb", '[{"sku":"s1","n":1},{"sku":"s2","n":2}]'),
        ("address.none jsonb", "address.none", "jsonb", None),
        ("@ json", "@", "json", msgspec.json.encode(ROW).decode()),
        ("at timestamp(3) with time zone", "at", "timestamp(3) with time zone", None),
        ("mood public.mood", "mood", "public.mood", None),
    ],
)
def test_a_column_is_a_path_and_a_type(text: str, path: str, type: str, value: Any) -> None:
    (column,) = parse_columns({"c": text})
    assert (column.name, column.path, column.type) == ("c", path, type)
    assert pick(ROW, [column]) == (value,)
    assert pick(msgspec.Raw(msgspec.json.encode(ROW)), [column]) == (value,)


@pytest.mark.parametrize(
    "text", ["", "name", "name text; DROP TABLE x", "a..b text", "lines[ text", "a 'text'"]
)
def test_what_is_no_path_and_type_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a path and a type, such as"):
        parse_columns({"c": text})


@pytest.mark.parametrize("name", ["_id", "_REV", "_version", "_row"])
def test_pillowds_own_columns_are_reserved(name: str) -> None:
    with pytest.raises(ValueError, match="reserved for pillowd"):
        parse_columns({name: "name text"})


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_a_column_needs_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a column's name"):
        parse_columns({name: "name text"})


def test_an_outputs_columns_are_checked_with_the_configuration() -> None:
    with pytest.raises(ValidationError, match="is not a path and a type"):
        TableOutput(table="t", columns={"c": "nothing"})
    assert [c.name for c in TableOutput(table="t", columns={"b": "b text", "a": "a text"}).parsed] == [
        "b",
        "a",
    ]


def test_an_expression_that_does_not_fit_the_row_is_permanent() -> None:
    with pytest.raises(PermanentError, match=r"length\(name\)"):
        pick({"name": 5}, parse_columns({"c": "length(name) int"}))


@pytest.mark.parametrize("raw", [b"", b"[1]", b'"x"', b'{"a": ', b"\xff"])
def test_bytes_that_are_no_object_are_permanent(raw: bytes) -> None:
    with pytest.raises(PermanentError, match="not a JSON object"):
        decode(msgspec.Raw(raw))


def test_rows_of_the_source_stay_as_they_are() -> None:
    raw = msgspec.Raw(b'{ "n" : 1.0 }')
    assert pick({"row": raw}, parse_columns({"c": "row jsonb"})) == ('{ "n" : 1.0 }',)
