"""Which fields move aside for which reason. The reasons are those of Elasticsearch 9.5 and OpenSearch 3.8."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pillows.transports.common.search.encoder import Operation
from pillows.transports.common.search.misfits import (
    MAX_ROUNDS,
    UNINDEXED,
    UNINDEXED_MAPPING,
    Misfit,
    put_back,
    set_aside,
)

ACTION = b'{"index":{"_id":"a\\n","version":5,"version_type":"external"}}'


def moved(document: Any, reason: str, rounds: int = 0) -> Any:
    """Return the document after a refusal; None if nothing is left to move."""
    body = b"%b\n%b\n" % (ACTION, json.dumps(document).encode())
    kept = set_aside(Misfit(Operation("a\n", 5, False, body), reason, rounds))
    if kept is None:
        return None
    assert (kept.id, kept.write_version, kept.removes) == ("a\n", 5, False)
    action, source, end = kept.body.split(b"\n")
    assert (action, end) == (ACTION, b"")
    return json.loads(source)


def test_f2_the_field_aside_is_of_no_type_and_documents_are_asked_for_five_times() -> None:
    assert UNINDEXED_MAPPING == {"type": "object", "enabled": False}
    assert MAX_ROUNDS == 5


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("n", "[1:6] object mapping for [n] tried to parse field [n] as object, but found a concrete value"),
        (
            "n",
            "[1:7] object mapping for [n] tried to parse field [null] as object, but found a concrete value",
        ),
        ("n", "[1:17] failed to parse field [n.a] of type [long] in document with id 'm5'."),
        ("n", "can't merge a non object mapping [n] with an object mapping"),
        ("s.x", "[1:8] failed to parse field [s] of type [text] in document with id 'm10'."),
        (
            "s.x",
            "Could not dynamically add mapping for field [s.x]. Existing mapping for [s] must be of type",
        ),
    ],
)
def test_f2_the_field_that_a_reason_names_moves_aside(field: str, reason: str) -> None:
    document = {"nn": 1, field: {"b": [1.50, "é"]}, "z": None}
    expected = {"nn": 1, "z": None, UNINDEXED: {field: {"b": [1.50, "é"]}}}
    assert moved(document, f"mapper_parsing_exception {reason}") == expected


@pytest.mark.parametrize(
    "reason", ["failed to parse", "[1:2] Field name cannot contain only whitespace: [ ]", ""]
)
def test_f2_all_fields_move_if_none_is_named(reason: str) -> None:
    assert moved({"a": 1, "b": 2}, reason) == {UNINDEXED: {"a": 1, "b": 2}}


def test_f2_fields_that_moved_stay_where_they_are() -> None:
    once = moved({"a": 1, "b": 2, "c": 3}, "[a]")
    twice = moved(once, "[b]", 1)
    assert twice == {"c": 3, UNINDEXED: {"a": 1, "b": 2}}
    assert moved(twice, "[c]", 2) == {UNINDEXED: {"a": 1, "b": 2, "c": 3}}
    assert moved({UNINDEXED: {"a": 1}}, "[a]", 3) is None


def test_f2_after_some_rounds_all_that_are_left_move() -> None:
    document = {UNINDEXED: {"a": 1}, "b": 2, "c": 3}
    assert moved(document, "[b]", MAX_ROUNDS - 1) == {"c": 3, UNINDEXED: {"a": 1, "b": 2}}
    assert moved(document, "[b]", MAX_ROUNDS) == {UNINDEXED: {"a": 1, "b": 2, "c": 3}}


def test_f2_a_field_of_that_name_in_the_document_moves_with_all_others() -> None:
    document = {UNINDEXED: 7, "a": 1, "b": 2}
    assert moved(document, "[a]") == {UNINDEXED: {UNINDEXED: 7, "a": 1, "b": 2}}


@pytest.mark.parametrize("source", [b"{}", b"[1]", b"{", b'{"a":\xff}'])
def test_f2_what_is_no_document_stays_a_dead_letter(source: bytes) -> None:
    operation = Operation("a", 1, False, b"%b\n%b\n" % (ACTION, source))
    assert set_aside(Misfit(operation, "failed to parse")) is None


@pytest.mark.parametrize(
    ("stored", "whole"),
    [
        ({"a": 1, UNINDEXED: {"b": 2}}, {"a": 1, "b": 2}),
        ({UNINDEXED: {UNINDEXED: 7, "a": 1}}, {UNINDEXED: 7, "a": 1}),
        ({UNINDEXED: 7, "a": 1}, {UNINDEXED: 7, "a": 1}),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_f2_a_stored_document_is_put_together_again(stored: Any, whole: Any) -> None:
    assert put_back(stored) == whole


def test_f2_numbers_keep_every_digit() -> None:
    body = b"%b\n%b\n" % (ACTION, b'{"a":123456789012345678901234567890,"b":1.10}')
    kept = set_aside(Misfit(Operation("a", 1, False, body), "[b]"))
    assert kept is not None
    assert kept.body.endswith(b'{"a":123456789012345678901234567890,"pillowd_unindexed":{"b":1.10}}\n')
