"""Two JSON texts are the same if they hold the same value."""

from __future__ import annotations

import pytest

from pillows.transports.common.same_json import is_same_json, is_same_value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": [1, {"c": null}]}', '{"b":[1,{"c":null}],"a":1}'),
        ('"\\u00fc"', '"ü"'),
        ("1", "1.0"),
        ("100", "1e2"),
        ("1e400", "10e399"),
        ("-0.0", "0"),
        ("not json", "not json"),
        ("[" * 5000 + "1" + "]" * 5000, "[" * 5000 + "1.0" + "]" * 5000),
    ],
)
def test_texts_of_the_same_value_are_the_same(one: str, other: str) -> None:
    assert is_same_json(one, other)
    assert is_same_json(other.encode(), one.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("true", "1"),
        ("false", "0"),
        ("null", "false"),
        ("1", '"1"'),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 1]"),
        ("{}", "[]"),
        ('{"a": 1}', '{"a": 1, "b": null}'),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("9007199254740993", "9007199254740992.0"),
        ('{"a": [true]}', '{"a": [1]}'),
        ("1", "not json"),
        ("[" * 5000 + "1" + "]" * 5000, "[" * 5000 + "2" + "]" * 5000),
    ],
)
def test_other_values_are_not(one: str, other: str) -> None:
    assert not is_same_json(one, other)
    assert not is_same_json(other, one)


def test_decoded_values_are_compared_alike() -> None:
    assert is_same_value({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not is_same_value({"a": [1, True]}, {"a": [1, 1]})
