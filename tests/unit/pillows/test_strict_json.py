"""What JSON cannot hold is refused; everything else comes back as it was."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import gevent
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillows.strict_json import NotJSONError, encode, run_deeply

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


@pytest.mark.parametrize("digits", ["1.10", "0.1000000000000000055511151231257827", "-0", "1E+400"])
def test_a4_a_decimal_keeps_its_digits(digits: str) -> None:
    assert encode({"price": Decimal(digits)}) == b'{"price":%b}' % digits.encode()


@pytest.mark.parametrize("levels", [1_500, 10_000])
def test_b1_what_couchdb_stores_is_read_and_written_in_greenlets_and_threads(levels: int) -> None:
    raw = b"[" * levels + b"]" * levels

    def rewrite() -> bytes:
        return encode(run_deeply(lambda: msgspec.json.decode(raw)))

    assert rewrite() == gevent.spawn(rewrite).get() == gevent.get_hub().threadpool.apply(rewrite) == raw


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
