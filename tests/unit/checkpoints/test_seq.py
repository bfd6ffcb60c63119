"""Positions are kept as they came, and nothing can be read into them."""

from __future__ import annotations

import operator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import Checkpoint, Seq

TOKENS = [0, 7, "0", "7-g1AAAA_-+/=", "x" * 4096, [7, "g1A"], [[1, 2], "ä\u2028"]]


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_keeps_its_value_and_its_type_through_store_and_url(token: Any):
    seq = Seq.of(token)
    stored = Checkpoint.from_json(Checkpoint(seq=seq).to_json()).seq
    assert (stored, stored.value, type(stored.value)) == (seq, token, type(token))
    assert unquote(seq.query) == (token if isinstance(token, str) else seq.json)
    assert "+" not in seq.query
    assert "/" not in seq.query


@pytest.mark.parametrize("value", [None, True, 1.5, {"a": 1}])
def test_what_is_no_token_is_refused(value: Any):
    with pytest.raises(TypeError):
        Seq.of(value)


@pytest.mark.parametrize(
    "operation",
    [operator.lt, operator.le, operator.gt, operator.ge, operator.add, operator.sub],
)
def test_two_positions_cannot_be_compared_or_reckoned_with(operation: Any):
    with pytest.raises(TypeError, match="opaque"):
        operation(Seq.of(1), Seq.of(2))


@pytest.mark.parametrize("operation", [int, float, operator.index])
def test_a_position_is_no_number(operation: Any):
    with pytest.raises(TypeError):
        operation(Seq.of("7-x"))


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_any_token_survives(token: Any):
    assert Seq.of(Seq.of(token).value) == Seq.of(token)
