"""Columns that are inferred from a sample."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.mirror.columns import MAX_COLUMNS, infer_columns
from pillows import registry


def column_types(type: str):
    return registry.transport(type).mirror.COLUMN_TYPES


SQLITE = column_types("sqlite")


@pytest.mark.parametrize(
    ("target", "types"), [("postgres", ("numeric", "boolean")), ("sqlite", ("any", "integer"))]
)
def test_field_of_one_kind_becomes_a_column(target, types):
    documents: list[dict[str, Any]] = [
        {"_id": "a", "_rev": "1-x", "name": "x", "age": 3, "w": 1, "ok": True, "mixed": 1, "tags": []},
        {"_id": "b", "name": "y", "age": None, "w": 1.5, "mixed": "1", "big": 2**70, "a b": 1, "doc": 5},
    ]

    number, boolean = types
    assert infer_columns(documents, column_types(target)) == {
        "name": "name text",
        "w": f"w {number}",
        "age": f"age {number}",
        "ok": f"ok {boolean}",
        "big": f"big {number}",
        "doc": "doc jsonb",
    }


def test_columns_that_differ_in_case_and_too_many_are_left_out():
    documents: list[dict[str, Any]] = [
        {"Name": "x", "name": "y"},
        {"Name": "z"},
        {f"f{n}": 1 for n in range(500)},
    ]

    columns = infer_columns(documents, SQLITE)

    assert "Name" in columns
    assert "name" not in columns
    assert len(columns) == MAX_COLUMNS + 1


def test_an_empty_database_has_only_the_document():
    assert infer_columns([], SQLITE) == {}


def test_system_columns_of_postgresql_are_left_out():
    documents: list[dict[str, Any]] = [
        {"xmin": 1, "xmax": 2, "CTID": "x", "cmin": 1, "cmax": 1, "tableoid": 1, "price": 3}
    ]

    assert infer_columns(documents, column_types("postgres")) == {
        "price": "price numeric",
        "doc": "doc jsonb",
    }
