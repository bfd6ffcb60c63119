"""Filters and transforms in a configuration: steps, registered names, and what is wrong with them."""

from __future__ import annotations

import sys
import textwrap

import pytest

from daemon.assembly.pipelines import build_pillow, build_transports
from daemon.checks.functions import check_functions
from daemon.checks.pillow_tests import check_pillow_tests
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.tail_lookup import tail_keys
from pillows.models import Change, Document
from tests.unit.pipeline.test_steps import CASE, document

HEAD = """\
version: 1
daemon: {{ plugins_path: [{plugins}] }}
connections:
  couch: {{ type: couchdb, url: "http://127.0.0.1:5984" }}
  nowhere: {{ type: "null" }}
pillows:
  cases:
    source: {{ connection: couch, database: cases }}
    outputs: [case, visit]
    transport: [{{ connection: nowhere, outputs: {{ case: {{}}, visit: {{}} }} }}]
"""


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "plugins").mkdir()

    def make(pillow: str, plugin: str = ""):
        name = f"plugin_{tmp_path.name}"
        (tmp_path / "plugins" / f"{name}.py").write_text(textwrap.dedent(plugin).replace("NAME", name))
        body = textwrap.indent(textwrap.dedent(pillow).replace("NAME", name), "    ")
        (tmp_path / "pillowd.yaml").write_text(HEAD.format(plugins="plugins") + body)
        return load(tmp_path / "pillowd.yaml")

    yield make
    folder = str(tmp_path / "plugins")
    if folder in sys.path:
        sys.path.remove(folder)


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


def test_l11_filters_and_transforms_are_found_by_their_registered_name_with_arguments(loaded):
    config = loaded(
        """
        filter: { name: only-NAME, args: { kind: Form } }
        transform: { name: greet-NAME, args: { greeting: Hello } }
        """,
        PLUGIN,
    )
    assert check_functions(config) == []
    pillow = built(config)
    kept = [
        pillow.filter(Change(id="a", revs=("1-a",), leaf_version=1, raw=document({"kind": kind}).raw))
        for kind in ("Form", "Case")
    ]
    assert kept == [True, False]
    assert pillow.transform(document({"name": "Ada"})) == {"case": ({"text": "Hello Ada"},)}


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
        ("transform:\n  compute:\n    n: 'length('", 12, "transform.compute", "is no path"),
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
def test_mistakes_are_told_with_their_place(loaded, pillow, line, path, message):
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
def test_functions_that_are_not_there_are_told_with_their_place(loaded, pillow, path, message):
    (mistake,) = check_functions(loaded(pillow, PLUGIN))
    assert mistake.key == f"pillows.cases.{path}"
    assert message in f"{mistake.message}; {mistake.remedy}"


def test_a_plugin_that_cannot_be_imported_is_named(loaded):
    (mistake,) = check_functions(loaded("transform: { name: nobody }", "raise ValueError('broken')"))
    assert "broken" in mistake.message


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


PACED = """\
version: 1
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:5984" }
  files: { type: jsonl, folder: . }
  slow: { type: "null" }
pillows:
  cases:
    source: { connection: couch, database: cases }
    transport:
    - { connection: files, file: cases.jsonl }
    - { connection: slow, own_pace: true }
"""


def test_w5_a_transport_at_its_own_pace_is_a_pillow_of_its_own(tmp_path):
    """What others call an optional sink: it has its own checkpoint, and holds nobody back."""
    (tmp_path / "pillowd.yaml").write_text(PACED)
    config = load(tmp_path / "pillowd.yaml")
    assert [str(key) for key in tail_keys(config)] == ["cases@couch/cases", "cases.slow@couch/cases"]
    names = [[each.name for each in build_transports(config, key)] for key in tail_keys(config)]
    assert names == [["files"], ["slow"]]
    own = build_pillow("cases.slow", config.tails["cases.slow"])
    assert list(own.outputs) == ["cases"]
    assert list(own.transform(document())) == ["cases"]


def test_several_batches_in_flight_need_a_target_that_takes_them(tmp_path):
    text = PACED + "    batch: { max_in_flight: 4 }\n"
    (tmp_path / "pillowd.yaml").write_text(text)
    with pytest.raises(
        ConfigErrors, match=r"batch.max_in_flight: `files` \(jsonl\) writes one batch at a time"
    ):
        load(tmp_path / "pillowd.yaml")

    alone = text.replace("    - { connection: files, file: cases.jsonl }\n", "").replace(
        ", own_pace: true", ""
    )
    (tmp_path / "pillowd.yaml").write_text(alone)
    config = load(tmp_path / "pillowd.yaml")
    (key,) = tail_keys(config)
    assert config.tails[key.pillow].batch.max_in_flight == 4


def test_one_transport_keeps_the_pillows_name(tmp_path):
    text = PACED.replace("    - { connection: files, file: cases.jsonl }\n", "")
    (tmp_path / "pillowd.yaml").write_text(text)
    with pytest.raises(ConfigErrors, match=r"transport\[0\].own_pace: every transport .* so none is left"):
        load(tmp_path / "pillowd.yaml")


CASES = """
filter: { jmespath: "doc.kind == 'Case'" }
transform:
- { pick: [_id, name], rows: { visit: { each: visits, fields: { day: on } } } }
- { types: { name: text } }
tests:
- name: a case
  doc: { _id: a, kind: Case, name: 5, visits: [{ on: mon }] }
  rows: { case: [{ _id: a, name: "5" }], visit: [{ day: mon }] }
- { doc: { _id: b, kind: Form } }
- { doc: { _id: a, kind: Case, _deleted: true }, rows: [] }
"""


def test_the_tests_of_a_pillow_pass(loaded):
    assert check_pillow_tests(loaded(CASES)) == []


@pytest.mark.parametrize(
    ("old", "new", "index", "line", "message"),
    [
        ('name: "5"', "name: 5", 0, 17, "the test 'a case' fails: expected of `case` [{"),
        ("day: mon", "day: tue", 0, 17, "expected of `visit`"),
        ("kind: Form }", "kind: Case }", 1, 20, 'expected of `case` no rows, got [{"_id": "b"}]'),
        ("rows: []", "rows: [{ _id: a }]", 2, 21, "expected of `case` [{\"_id\": \"a\"}], got no rows"),
        ("visits: [{ on: mon }]", "visits: [1]", 0, 17, "PermanentError: The rows of 'visit' need objects"),
        ("visit: [{ day: mon }]", "visit: [{ day: mon }], vist: []", 0, 17, "there is no output `vist`"),
    ],
)  # fmt: skip
def test_a_failing_test_is_told_with_its_line_and_both_rows(loaded, old, new, index, line, message):
    (mistake,) = check_pillow_tests(loaded(CASES.replace(old, new)))
    assert mistake.key == f"pillows.cases.tests[{index}]"
    assert message in mistake.message
    assert mistake.place.line == line


TRANSPORT_PLUGIN = """
    from pillows.registry import register
    from pillows.transports.null import NullTransport

    @register("transport", "mytype-NAME")
    class MyTransport(NullTransport):
        pass
"""


def test_l11_a_transport_may_be_registered_by_a_plugin(tmp_path):
    (tmp_path / "plugins").mkdir()
    plugin = TRANSPORT_PLUGIN.replace("NAME", tmp_path.name)
    (tmp_path / "plugins" / f"transport_{tmp_path.name}.py").write_text(textwrap.dedent(plugin))
    text = PACED.replace('type: "null"', f"type: mytype-{tmp_path.name}")
    (tmp_path / "pillowd.yaml").write_text(f"{text}daemon: {{ plugins_path: [plugins] }}\n")
    config = load(tmp_path / "pillowd.yaml")
    (transport,) = build_transports(config, tail_keys(config)[1])
    assert type(transport).__name__ == "MyTransport"

    (tmp_path / "pillowd.yaml").write_text(f"{text}daemon: {{ plugins_path: [] }}\n".replace("mytype", "x"))
    with pytest.raises(ConfigErrors, match="there is no type `x-"):
        load(tmp_path / "pillowd.yaml")
