"""The `tests` of pillows."""

from __future__ import annotations

import pytest

from daemon.checks.pillow_tests import check_pillow_tests

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


def test_the_daemon_leaves_out_isolated_pillows_whose_functions_it_never_calls(loaded):
    wrong = CASES.replace('name: "5"', "name: 5")
    assert len(check_pillow_tests(loaded(wrong), within_daemon=True)) == 1
    assert check_pillow_tests(loaded(f"isolate: true{wrong}"), within_daemon=True) == []
    assert len(check_pillow_tests(loaded(f"isolate: true{wrong}"))) == 1


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
def test_failing_test_names_its_line_and_both_rows(loaded, old, new, index, line, message):
    (mistake,) = check_pillow_tests(loaded(CASES.replace(old, new)))
    assert mistake.key == f"pillows.cases.tests[{index}]"
    assert message in mistake.message
    assert mistake.place.line == line
