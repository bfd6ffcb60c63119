"""Declarative steps, chains and chunked functions."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pillows.errors import FatalError, PermanentError
from pillows.stages.conversions import CONVERSIONS, convert
from pillows.stages.declarative import ChildRows, DeclarativeStep
from pillows.stages.transforms import Chain, ChunkedTransform, PythonTransform
from tests.support.case_document import CASE, case, document


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ({"pick": ["_id", "missing", "nothing"]}, {"_id": "c1", "nothing": None}),
        (
            {"pick": ["address.city", "address.owner.name"]},
            {"address": {"city": "London", "owner": {"name": "Bob"}}},
        ),
        ({"pick": ["address", "name"], "drop": ["address.owner", "address.nope", "no.where"]},
         {"address": {"city": "London", "zip": "N1"}, "name": "Ada"}),
        ({"pick": ["visits"], "drop": ["visits.note", "visits.by"]},
         {"visits": [{"on": "2026-01-02"}, {"on": "2026-01-09"}]}),
        ({"pick": ["ssn", "visits"], "drop": ["visits.by", "visits.on"],
          "redact": {"ssn": "***", "visits.note": None, "nope": "x"}},
         {"ssn": "***", "visits": [{"note": None}, {"note": None}]}),
        ({"pick": ["name", "address.city"], "rename": {"name": "full_name", "address.city": "city"}},
         {"full_name": "Ada", "city": "London"}),
        ({"pick": ["name"], "rename": {"name": "who.name", "nope": "x"}}, {"who": {"name": "Ada"}}),
        ({"pick": ["name"], "set": {"origin": "couch"}}, {"name": "Ada", "origin": "couch"}),
        (
            {"pick": [], "compute": {"visits": "length(visits)", "last": "visits[-1].on", "to.deep": "name"}},
            {"visits": 2, "last": "2026-01-09", "to": {"deep": "Ada"}},
        ),
        ({"pick": ["born"], "types": {"born": "date", "nope": "integer"}}, {"born": "1990-03-01"}),
        ({"pick": ["visits"], "drop": ["visits.note", "visits.by"], "types": {"visits.on": "timestamp"}},
         {"visits": [{"on": "2026-01-02T00:00:00+00:00"}, {"on": "2026-01-09T00:00:00+00:00"}]}),
    ],
)  # fmt: skip
def test_a_step_reshapes_a_document_and_leaves_it_as_it_was(settings, row):
    body = case()
    assert DeclarativeStep(**settings).apply(body) == row
    assert body == CASE


@pytest.mark.parametrize(
    ("rename", "body", "row"),
    [
        ({"a": "b", "b": "a"}, {"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": "b", "b": "c"}, {"a": 1, "b": 2}, {"b": 1, "c": 2}),
        ({"b": "c", "a": "b"}, {"a": 1, "b": 2}, {"b": 1, "c": 2}),
        ({"x.a": "x.b", "x.b": "x.a"}, {"x": {"a": 1, "b": 2}}, {"x": {"a": 2, "b": 1}}),
        ({"x.a": "a", "x.b": "x"}, {"x": {"a": 1, "b": 2}}, {"a": 1, "x": 2}),
        ({"x": "p", "x.a": "q"}, {"x": {"a": 1, "b": 2}}, {"p": {"b": 2}, "q": 1}),
        ({"x.a": "q", "x": "p"}, {"x": {"a": 1, "b": 2}}, {"p": {"b": 2}, "q": 1}),
        ({"a": "a"}, {"a": None}, {"a": None}),
        ({"a": "b"}, {"a": 1, "b": 2}, {"b": 1}),
        ({"y": "a.b"}, {"a": 1, "y": 2}, {"a": {"b": 2}}),
        ({"y": "a.b"}, {"a": {"c": 1}, "y": 2}, {"a": {"b": 2, "c": 1}}),
    ],
)
def test_fields_are_renamed_all_at_once(rename, body, row):
    before = copy.deepcopy(body)
    assert DeclarativeStep(rename=rename).apply(body) == row
    assert body == before


@pytest.mark.parametrize(
    "rename", [{"a": "x", "b": "x"}, {"a": "x.y", "b": "x.y"}, {"a": "x", "b": "x.y"}, {"a": "x.y", "b": "x"}]
)
def test_two_fields_cannot_get_one_name(rename):
    with pytest.raises(ValueError, match="lost"):
        DeclarativeStep(rename=rename)


def test_rows_come_from_an_array_with_columns_of_element_and_document():
    step = DeclarativeStep(
        rows={
            "visit": ChildRows(
                each="visits", fields={"day": "on", "by": "by.name"}, parent={"case_id": "_id"}
            ),
            "tag": ChildRows(each="tags", fields={"tag": "@"}, parent={"case_id": "_id"}),
            "whole": ChildRows(each="visits[?on > '2026-01-05'].by"),
            "none": ChildRows(each="missing"),
        }
    )
    assert step.children(case()) == {
        "visit": [
            {"case_id": "c1", "day": "2026-01-02", "by": "Cy"},
            {"case_id": "c1", "day": "2026-01-09", "by": "Di"},
        ],
        "tag": [{"case_id": "c1", "tag": "a"}, {"case_id": "c1", "tag": "b"}],
        "whole": [{"name": "Di"}],
        "none": [],
    }


@pytest.mark.parametrize(("each", "reason"), [("name", "an array at 'name'"), ("tags", "objects")])
def test_rows_of_something_else_than_an_array_of_objects_are_refused(each, reason):
    with pytest.raises(PermanentError, match=reason):
        DeclarativeStep(rows={"visit": ChildRows(each=each, fields={"day": "on"})}).children(case())


@pytest.mark.parametrize(
    ("type", "value", "expected"),
    [
        ("integer", 12, 12),
        ("integer", "12", 12),
        ("integer", " -7 ", -7),
        ("integer", 12.0, 12),
        ("number", "12.5", 12.5),
        ("number", "12", 12),
        ("number", 3, 3),
        ("number", "12.0", 12.0),
        ("number", " -1.5e3 ", -1500.0),
        ("number", ".5", 0.5),
        ("number", "9007199254740993", 9007199254740993),
        ("number", "9007199254740993.0", 9007199254740993),
        ("number", "-9007199254740993.", -9007199254740993),
        ("text", 12, "12"),
        ("text", {"a": [1]}, '{"a":[1]}'),
        ("text", True, "true"),
        ("text", "x", "x"),
        ("boolean", True, True),
        ("boolean", "no", False),
        ("boolean", 1, True),
        ("date", "2026-03-01", "2026-03-01"),
        ("date", "2026-03-01T23:30:00-05:00", "2026-03-01"),
        ("timestamp", "2026-03-01T12:00:00", "2026-03-01T12:00:00+00:00"),
        ("timestamp", "2026-03-01T12:00:00.5Z", "2026-03-01T12:00:00.500000+00:00"),
        ("timestamp", 1772366400000, "2026-03-01T12:00:00+00:00"),
        ("json", '{"a": 1}', {"a": 1}),
        ("json", [1], [1]),
    ],
)
def test_values_are_converted(type, value, expected):
    converted = convert("f", type, value)
    assert (converted, converted.__class__) == (expected, expected.__class__)
    assert convert("f", type, None) is None


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("integer", 12.5),
        ("integer", "12.5"),
        ("integer", True),
        ("integer", [1]),
        ("integer", "9" * 5000),
        ("number", "nan"),
        ("number", "1_000"),
        ("number", "1_000.5"),
        ("number", "1e400"),
        ("number", "9" * 5000 + ".0"),
        ("number", float("inf")),
        ("number", True),
        ("number", "x"),
        ("number", {}),
        ("boolean", "maybe"),
        ("boolean", 2),
        ("boolean", 0.0),
        ("date", "1.3.2026"),
        ("date", 5),
        ("date", ""),
        ("timestamp", "yesterday"),
        ("timestamp", 1e300),
        ("timestamp", False),
        ("json", "{"),
        ("text", {1j}),
    ],
)
def test_a_value_that_cannot_be_converted_is_refused_with_field_and_type_but_not_shown(type, value):
    with pytest.raises(PermanentError, match=rf"'f' has a .* that is not a valid {type}") as raised:
        convert("f", type, value)
    assert "maybe" not in str(raised.value)


def test_every_type_is_known():
    assert set(CONVERSIONS) == {"integer", "number", "text", "boolean", "date", "timestamp", "json"}
    with pytest.raises(ValueError, match="is not a type"):
        DeclarativeStep(types={"a": "float"})


def test_an_expression_that_does_not_fit_the_document_is_refused_with_its_text():
    step = DeclarativeStep(compute={"n": "length(n)"})
    with pytest.raises(PermanentError, match=r"'length\(n\)' does not fit"):
        step.apply({"n": 5})


@pytest.mark.parametrize("path", ["", "a..b", "a b", "a[0]", "f(x)"])
def test_what_is_no_dotted_path_cannot_be_picked(path):
    with pytest.raises(ValueError, match="is not a name or dotted path"):
        DeclarativeStep(pick=[path])


# --- chains


def test_each_step_of_a_chain_gets_what_the_one_before_has_made():
    chain = Chain(
        [
            DeclarativeStep(
                pick=["_id", "name", "visits"], rows={"visit": ChildRows(each="visits", fields={"d": "on"})}
            ),
            lambda doc: doc | {"name": doc["name"].upper()},
            DeclarativeStep(drop=["visits"], rename={"name": "who"}),
        ],
        ("case", "visit"),
    )
    assert chain(document()) == {
        "case": ({"_id": "c1", "who": "ADA"},),
        "visit": [{"d": "2026-01-02"}, {"d": "2026-01-09"}],
    }


def test_none_from_any_function_of_a_chain_drops_the_document():
    chains: Any = (
        [lambda doc: None, DeclarativeStep(drop=["a"])],
        [DeclarativeStep(drop=["a"]), lambda doc: None],
    )
    for steps in chains:
        assert not any(Chain(steps, ("case",))(document()).values())


def test_the_last_function_of_a_chain_may_give_rows_of_several_outputs():
    chain = Chain([DeclarativeStep(pick=["name"]), lambda doc: {"b": [doc, doc]}], ("a", "b"))
    assert chain(document()) == {"b": [{"name": "Ada"}, {"name": "Ada"}]}


def test_a_function_within_a_chain_that_gives_no_document_is_refused():
    with pytest.raises(PermanentError, match="returned list"):
        Chain([lambda doc: [doc], DeclarativeStep(drop=["a"])], ("a",))(document())


def test_an_array_can_fill_the_only_output():
    chain = Chain([DeclarativeStep(rows={"visit": ChildRows(each="visits", fields={"d": "on"})})], ("visit",))
    assert chain(document()) == {"visit": [{"d": "2026-01-02"}, {"d": "2026-01-09"}]}


def test_no_function_changes_the_document_that_others_see():
    def spoil(doc):
        doc["address"].clear()
        return doc

    transforms: Any = (
        PythonTransform(spoil, ("a",)),
        Chain([DeclarativeStep(pick=["address"]), spoil], ("a",)),
        ChunkedTransform(lambda docs: [spoil(doc) for doc in docs], ("a",), chunk=5),
    )
    for transform in transforms:
        shared = document()
        assert shared.doc["address"]["city"] == "London"
        assert transform(shared)["a"][0]["address"] == {}
        assert shared.doc == CASE


# --- chunks


def test_a_chunk_is_bounded_and_asked_at_once():
    sizes = []

    def function(docs):
        sizes.append(len(docs))
        return [{"n": doc["n"]} for doc in docs]

    transform = ChunkedTransform(function, ("a",), chunk=250)
    results: Any = transform.many([document({"n": n}) for n in range(600)])

    assert sizes == [250, 250, 100]
    assert [rows["a"][0]["n"] for rows in results] == list(range(600))


def test_a_document_that_breaks_a_chunk_fails_alone():
    def function(docs):
        return [{"n": 1 / doc["n"]} for doc in docs]

    results = ChunkedTransform(function, ("a",), chunk=10).many([document({"n": n}) for n in (1, 0, 2)])

    assert isinstance(results[1], ZeroDivisionError)
    assert [results[0], results[2]] == [{"a": ({"n": 1.0},)}, {"a": ({"n": 0.5},)}]


def test_a_chunk_with_the_wrong_number_of_results_writes_none_of_them():
    results = ChunkedTransform(lambda docs: docs[1:], ("a",), chunk=10).many([document({"n": 1})] * 2)
    assert all("0 results for 1 documents" in str(each) for each in results)


def test_a_chunked_function_may_stop_the_pillow():
    def function(docs):
        raise FatalError("no licence")

    with pytest.raises(FatalError, match="no licence"):
        ChunkedTransform(function, ("a",), chunk=2).many([document()])
