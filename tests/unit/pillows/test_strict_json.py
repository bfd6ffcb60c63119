"""What JSON cannot hold is refused; everything else comes back as it was."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillows.strict_json import NotJSONError, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


def containers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, max_size=4) | st.dictionaries(TEXT, parts, max_size=4)


FAULTS = st.sampled_from(
    [math.nan, math.inf, {1}, frozenset(), b"", bytearray(), 1j, object(), "\udfff", Decimal("sNaN")]
)


@given(st.recursive(SCALARS, containers, max_leaves=20))
def test_a4_what_json_can_hold_comes_back_as_it_was(value: Any) -> None:
    assert json.loads(encode(value)) == value


@given(
    st.recursive(
        FAULTS.map(lambda fault: [fault]),
        lambda parts: (
            st.lists(parts, min_size=1, max_size=3) | st.dictionaries(TEXT, parts, min_size=1, max_size=3)
        ),
        max_leaves=5,
    )
)
def test_a4_a_fault_is_found_however_deep_it_is(value: Any) -> None:
    with pytest.raises(NotJSONError, match="JSON cannot hold it"):
        encode(value)


def test_a4_a_value_that_is_nested_too_deeply_or_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotJSONError, match="nested too deeply"):
        encode({"a": loop})


def test_a4_the_message_shows_no_control_characters() -> None:
    with pytest.raises(NotJSONError, match=r"^a\\x1bb is of type set: "):
        encode({"a\x1bb": {1}})


def test_raw_json_stays_as_it_is() -> None:
    assert encode({"a": msgspec.Raw(b"1.50"), 1: (2,)}) == b'{"a":1.50,"1":[2]}'
