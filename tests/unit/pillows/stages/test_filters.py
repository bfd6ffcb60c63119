"""Filters that look into the document without naming it: they must get it."""

from __future__ import annotations

import msgspec
import pytest

from pillows.models import Change
from pillows.stages.filters import JmespathFilter


@pytest.mark.parametrize(
    "expression",
    [
        "doc.type == 'case'",
        "*.type | [0] == 'case'",
        "contains(values(@)[*].type, 'case')",
        "@.\"\\u0064oc\".type == 'case'",
        "\"\\u0064oc\".type == 'case'",
        'contains(to_string(@), \'"type":"case"\')',
    ],
)
def test_an_expression_that_reaches_the_document_gets_it(expression):
    """Without its document every change is dropped, and so every row of the target."""
    keeps = JmespathFilter(expression)
    body = msgspec.Raw(b'{"_id":"a","_rev":"1-a","type":"case"}')
    assert keeps(Change(id="a", revs=("1-a",), leaf_version=1, raw=body))
    assert keeps.needs_document


@pytest.mark.parametrize(
    "expression", ["starts_with(id, 'case-')", "!deleted && rev != '1-a'", "length(revs) > `1`"]
)
def test_one_that_does_not_is_asked_before_the_document_is_fetched(expression):
    assert not JmespathFilter(expression).needs_document
