"""Mango's selectors: which documents a `_find` or a feed's filter takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.servers.couchdb.collation import compare
from tests.servers.couchdb.errors import Refusal
from tests.servers.couchdb.jsontext import OddFloat

ABSENT: Any = object()

Test = Callable[[Any], bool]


class InvalidOperator(Exception):
    """A selector has an unknown operator."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Invalid operator: {name}")


def matcher(selector: Any) -> Test:
    """Return a function that tells whether a value matches a selector."""
    if not isinstance(selector, dict):
        return _equal(selector)
    tests = [_test(name, given) for name, given in selector.items()]
    return lambda value: all(test(value) for test in tests)


def _test(name: str, given: Any) -> Test:
    if name.startswith("$"):
        if name not in OPERATORS:
            raise InvalidOperator(name)
        return OPERATORS[name](given)
    path = [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name)]
    test = matcher(given)
    return lambda value: test(_at(value, path))


def _at(value: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part, ABSENT)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def _equal(given: Any) -> Test:
    return lambda value: value is not ABSENT and compare(value, given) == 0


def _compared(accepts: Callable[[int], bool]) -> Callable[[Any], Test]:
    return lambda given: lambda value: value is not ABSENT and accepts(compare(value, given))


def _all_of(given: Any) -> Test:
    tests = [matcher(one) for one in given]
    return lambda value: all(test(value) for test in tests)


def _any_of(given: Any) -> Test:
    tests = [matcher(one) for one in given]
    return lambda value: any(test(value) for test in tests)


def _none_of(given: Any) -> Test:
    test = _any_of(given)
    return lambda value: not test(value)


def _not(given: Any) -> Test:
    test = matcher(given)
    return lambda value: not test(value)


def _in(given: Any) -> Test:
    tests = [_equal(one) for one in given]
    return lambda value: any(
        test(one) for test in tests for one in ([value, *value] if isinstance(value, list) else [value])
    )


def _type(given: Any) -> Test:
    def test(value: Any) -> bool:
        kinds = {bool: "boolean", str: "string", dict: "object", list: "array", type(None): "null"}
        numbers = {int: "number", float: "number", OddFloat: "number"}
        return value is not ABSENT and (kinds | numbers).get(type(value)) == given

    return test


def _mod(given: Any) -> Test:
    divisor, rest = given
    return lambda value: type(value) is int and value % divisor == rest


def _items(accepts: Callable[[Any], bool]) -> Callable[[Any], Test]:
    def make(given: Any) -> Test:
        test = matcher(given)
        return lambda value: isinstance(value, list) and bool(value) and accepts(map(test, value))

    return make


def _all(given: Any) -> Test:
    tests = [_equal(one) for one in given]
    return lambda value: isinstance(value, list) and all(any(map(test, value)) for test in tests)


def _regex(given: Any) -> Test:
    return lambda value: isinstance(value, str) and re.search(given, value) is not None


OPERATORS: dict[str, Callable[[Any], Test]] = {
    "$eq": _equal,
    "$ne": lambda given: lambda value: value is not ABSENT and compare(value, given) != 0,
    "$lt": _compared(lambda order: order < 0),
    "$lte": _compared(lambda order: order <= 0),
    "$gt": _compared(lambda order: order > 0),
    "$gte": _compared(lambda order: order >= 0),
    "$and": _all_of,
    "$or": _any_of,
    "$nor": _none_of,
    "$not": _not,
    "$in": _in,
    "$nin": lambda given: lambda value: value is not ABSENT and not _in(given)(value),
    "$exists": lambda given: lambda value: (value is not ABSENT) is given,
    "$type": _type,
    "$mod": _mod,
    "$size": lambda given: lambda value: isinstance(value, list) and len(value) == given,
    "$regex": _regex,
    "$elemMatch": _items(any),
    "$allMatch": _items(all),
    "$all": _all,
    "$beginsWith": lambda given: lambda value: isinstance(value, str) and value.startswith(given),
}


def invalid_operator(error: InvalidOperator) -> Refusal:
    """Return the answer of `_find` to an unknown operator."""
    return Refusal(400, "invalid_operator", str(error))
