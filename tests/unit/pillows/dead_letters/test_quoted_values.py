"""What a target says of a document is kept without the document's values."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillows.dead_letters.quoted_values import hide_values

TEXT = "mapper_parsing_exception failed to parse field [born] of type [date] in document with id 'case-18'"


@pytest.mark.parametrize(
    ("text", "row", "shown"),
    [
        (TEXT, {"_id": "case-18", "born": "next week"}, TEXT),
        (f"{TEXT}: 'next week'", {"born": "next week"}, f"{TEXT}: '...'"),
        ("Column ssn: value 078-05-1120 is bad", {"ssn": "078-05-1120"}, "Column ssn: value ... is bad"),
        ("starts with 'Extremely long te...'", {"a": ["Extremely long text"]}, "starts with '......'"),
        ("3000000000000 is out of range", {"n": {"m": 3e12}}, "... is out of range"),
        ("value 4711 or 47112", {"n": 4711}, "value ... or 47112"),
        ("not a date: abc.", {"a": "abc"}, "not a date: ..."),
        ("the prefix is: '[120, -5, 99]...'", {"a": "x"}, "the prefix is: '......'"),
        ("no, it is true", {"a": "no", "b": True, "c": None}, "no, it is true"),
        ("", {"a": "whatever"}, ""),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_b8_values_are_hidden_and_names_and_ids_stay(text, row, shown, raw):
    rows = [msgspec.Raw(msgspec.json.encode(row)) if raw else row]
    assert hide_values(text, rows) == shown


def test_b8_what_cannot_be_read_hides_nothing_and_raises_nothing():
    assert hide_values("The document is not a JSON object.", [msgspec.Raw(b"{")]) == (
        "The document is not a JSON object."
    )
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    assert hide_values("nested too deeply", [{"a": deep}]) == "nested too deeply"


def test_b8_a_large_document_costs_bounded_time():
    rows = [{f"k{n}": f"{n:08d}" * 1000 for n in range(2000)}]
    assert hide_values("nothing of it is in this text " * 30, rows).startswith("nothing of it")


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=8, max_size=60),
    st.text("abc :'[]", max_size=30),
    st.text("abc :'[]", max_size=30),
    st.integers(8, 60),
)
def test_b8_no_piece_of_a_value_is_left(value, before, after, length):
    shown = hide_values(f"{before}{value[:length]}{after}", [{"field": {"deep": [value]}}])
    assert value[:length] not in shown
