"""Rows are fitted to their columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.plugins import find_named
from daemon.mirror.columns import infer_columns
from daemon.mirror.config import parse_mirror, prepare
from daemon.mirror.fit_columns import FitColumns
from pillows import registry

URL = "http://etl:s3cret%40x@couch.example:5984/prefix/org%2Fcases"


def column_types(type: str):
    return registry.transport(type).mirror.COLUMN_TYPES


SQLITE = column_types("sqlite")


def mirror(target: str, tmp_path: Path, url: str = URL):
    return parse_mirror(url, target, name=None, state_dir=tmp_path)


@pytest.mark.parametrize(
    ("type", "fitting", "unfit"),
    [
        ("text", ["", "x"], [1, True, 1.5, [], {}]),
        ("numeric", [0, -1, 9.99, 2**60 + 1, 2**70, 1e300], ["1", True, [1], {}, 10**2000]),
        ("any", [0, -1, 9.99, 2**60 + 1, 1e300], ["1", True, [1], {}, 2**63]),
        ("boolean", [True, False], [0, 1, "true", []]),
        ("integer", [True, False, 3], [1.5, "true", 2**63]),
        ("bigint", [0, 2**63 - 1], [1.5, True, "1", 2**63]),
        ("double precision", [0, 1.5], [True, "1"]),
    ],
)
def test_value_that_does_not_fit_leaves_its_column_empty(type, fitting, unfit):
    """A number that is no integer, a text where numbers are: the document is not left out for it."""
    fit = FitColumns(types={"field": type})

    for value in [None, *fitting]:
        document = {"_id": "a", "field": value}
        assert fit(document) == {**document, "doc": document}
    for value in unfit:
        document = {"_id": "a", "field": value}
        assert fit(document) == {"_id": "a", "field": None, "doc": {"_id": "a", "field": value}}


def test_every_inferred_type_has_a_test_of_its_values(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    config = prepare(wanted, lambda _: infer_columns([{"n": 1, "t": "x", "b": True}], SQLITE), {})

    (step,) = config.pillows["org_cases"].steps
    assert (step.name, step.python) == ("fit_columns", None), "no module of ours in a user's file"
    assert find_named("transform", python=None, name="fit_columns", folders=()) is FitColumns
    assert step.args == {"types": {"n": "any", "t": "text", "b": "integer"}}
    assert FitColumns(**step.args)({"n": "x"})["n"] is None
