"""What has a JSON form, and what is refused with its path and type."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import gevent
import msgspec
import pytest

from pillows.errors import PermanentError
from pillows.json_values import encode_json, run_deeply


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (msgspec.Raw(b'{ "n" : 1.0 }'), b'{ "n" : 1.0 }'),
        ({"row": msgspec.Raw(b"1.00")}, b'{"row":1.00}'),
        ({"on": date(2026, 1, 2)}, b'{"on":"2026-01-02"}'),
        ({"at": datetime(2026, 1, 2, tzinfo=UTC)}, b'{"at":"2026-01-02T00:00:00Z"}'),
        ((1, [2.5, None, True]), b"[1,[2.5,null,true]]"),
        (Colour.RED, b'"red"'),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_json_types_and_dates_have_a_form(value: Any, text: bytes) -> None:
    assert encode_json(value) == text


@pytest.mark.parametrize("digits", ["1.10", "0.1000000000000000055511151231257827", "-0", "1E+400"])
def test_a4_a_decimal_keeps_its_digits(digits: str) -> None:
    assert encode_json({"price": Decimal(digits)}) == b'{"price":%b}' % digits.encode()


@pytest.mark.parametrize(
    ("value", "path", "type"),
    [
        ({"a": [1, {"b": float("nan")}]}, "a[1].b", "float that is not finite"),
        ({"a": float("-inf")}, "a", "float that is not finite"),
        ({"a": Decimal("NaN")}, "a", "Decimal that is not finite"),
        ({"a": {1}}, "a", "set"),
        ({"a": frozenset()}, "a", "frozenset"),
        ({"a": b"x"}, "a", "bytes"),
        ([bytearray()], "[0]", "bytearray"),
        ({"a": object()}, "a", "object"),
        ({"a": {1: 2}}, "a", "int"),
    ],
)
def test_a4_what_json_cannot_hold_is_refused_with_path_and_type(value: Any, path: str, type: str) -> None:
    with pytest.raises(PermanentError) as refused:
        encode_json(value)
    assert f"{path!r} has no JSON form" in str(refused.value)
    assert type in str(refused.value)


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, ["\udfff"]])
def test_a4_half_of_a_surrogate_pair_is_refused(value: Any) -> None:
    with pytest.raises(PermanentError, match="no JSON form: it has half of a surrogate pair"):
        encode_json(value)


@pytest.mark.parametrize("levels", [1_500, 10_000])
def test_b1_what_couchdb_stores_is_read_and_written_in_greenlets_and_threads(levels: int) -> None:
    raw = b"[" * levels + b"]" * levels

    def rewrite() -> bytes:
        return encode_json(run_deeply(lambda: msgspec.json.decode(raw)))

    assert rewrite() == gevent.spawn(rewrite).get() == gevent.get_hub().threadpool.apply(rewrite) == raw


def test_b1_what_is_nested_more_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(20_000):
        value = [value]
    with pytest.raises(PermanentError, match="nested too deeply"):
        encode_json(value)
