"""The pipeline of a pillow as it is configured."""

from __future__ import annotations

import pytest

from daemon.assembly.pipelines import build_pillow
from daemon.checks.functions import check_functions
from daemon.config.problems import ConfigErrors
from pillows.models import Document
from tests.support.case_document import CASE, document


def built(config):
    return build_pillow("cases", config.pillows["cases"], config.daemon.plugins_path)


def test_a_nested_document_becomes_a_parent_row_and_child_rows(loaded):
    config = loaded(
        """
        transform:
          pick: [_id, name, address.city]
          rename: { address.city: city }
          types: { name: text }
          rows: { visit: { each: visits, fields: { day: on }, parent: { case_id: _id } } }
        """
    )
    assert built(config).transform(document()) == {
        "case": ({"_id": "c1", "name": "Ada", "city": "London"},),
        "visit": [{"case_id": "c1", "day": "2026-01-02"}, {"case_id": "c1", "day": "2026-01-09"}],
    }


PLUGIN = """
    from pillows.registry import register

    @register("filter", "only-NAME")
    def only(doc, kind="Case"):
        return doc["kind"] == kind

    @register("transform", "greet-NAME")
    class Greet:
        def __init__(self, greeting):
            self.greeting = greeting

        def __call__(self, doc):
            return {"case": {"text": f"{self.greeting} {doc['name']}"}}

    def many(docs):
        return [{"case": doc} for doc in docs]
"""


def test_a_step_may_be_a_function_among_others_or_take_chunks(loaded):
    config = loaded("transform: { python: 'NAME:many', chunk: 250 }", PLUGIN)
    assert built(config).transform.chunk == 250
    assert built(config).transform(document())["case"][0] == CASE


@pytest.mark.parametrize(
    ("pillow", "line", "path", "message"),
    [
        ("transform: { pik: [a] }", 11, "transform.pik", "did you mean `pick`"),
        ("transform:\n- { pick: [a] }\n- { drp: [a] }", 13, "transform[1].drp", "did you mean `drop`"),
        ("transform: { python: 'a:b', pick: [a] }", 11, "transform", "two steps of a list"),
        ("transform: {}", 11, "transform", "has no effect"),
        ("transform: { chunk: 5 }", 11, "transform", "without a function"),
        ("transform:\n- { python: 'a:b', chunk: 5 }\n- { pick: [a] }", 12, "transform[0].chunk", "only step"),
        ("transform:\n  compute:\n    n: 'length('", 12, "transform.compute", "is not a valid path"),
        ("transform: { rename: { 'a[0]': b } }", 11, "transform.rename", "dotted path"),
        ("transform:\n  types: { a: float }", 12, "transform.types.a", "not one of the allowed values"),
        ("transform:\n  rows: { visits: { each: v } }", 12, "transform.rows.visits", "did you mean `visit`"),
        ("transform:\n- rows: { visit: { each: v } }\n- rows: { visit: { each: v } }", 13,
         "transform[1].rows.visit", "two steps"),
        ("transform: { pick: [a] }", 9, "outputs[1]", "no step of the transform has `rows`"),
        ("filter: { name: a, jmespath: b }", 11, "filter", "exactly one"),
        ("tests: [{ rows: [] }]", 11, "tests[0].doc", "is missing"),
        ("attachments: { max_size: 5 }", 11, "attachments.max_size", "needs a number with a unit"),
    ],
)  # fmt: skip
def test_problems_of_a_pipeline_have_their_place(loaded, pillow, line, path, message):
    with pytest.raises(ConfigErrors) as raised:
        loaded(pillow)
    told = [each for each in raised.value.problems if each.key == f"pillows.cases.{path}"]
    assert told, str(raised.value)
    assert told[0].place.line == line
    assert message in f"{told[0].message}; {told[0].remedy}"


@pytest.mark.parametrize(
    ("pillow", "path", "message"),
    [
        ("transform: { name: nobody }", "transform.name", "no transform 'nobody'"),
        ("filter: { name: nobody }\ntransform: { python: 'NAME:many' }", "filter.name", "no filter 'nobody'"),
        ("transform:\n- { pick: [a] }\n- { python: 'NAME:mny' }", "transform[1].python", "did you mean"),
        ("transform: { name: greet-NAME }", "transform.name", "can't be made: TypeError"),
    ],
)
def test_missing_functions_have_their_place(loaded, pillow, path, message):
    (mistake,) = check_functions(loaded(pillow, PLUGIN))
    assert mistake.key == f"pillows.cases.{path}"
    assert message in f"{mistake.message}; {mistake.remedy}"


def test_a_chain_gives_each_step_what_the_one_before_has_made(loaded):
    config = loaded(
        """
        transform:
        - { pick: [_id, visits], rows: { visit: { each: visits } } }
        - { compute: { n: length(visits) } }
        - { drop: [visits] }
        """
    )
    assert built(config).transform(document())["case"] == ({"_id": "c1", "n": 2},)


def test_a_deleted_document_has_no_body():
    assert Document(id="a", rev="1-a", leaf_version=1, deleted=True, raw=None).doc == {}
