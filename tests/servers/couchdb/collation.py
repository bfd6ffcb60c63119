"""The order of JSON values in views: by type, and texts as ICU orders them, nearly.

ICU is not in Python. Punctuation comes before digits and digits before letters, small letters before capital
ones, an accent only decides between texts that are otherwise equal. That holds for the letters of Europe.
"""

from __future__ import annotations

import unicodedata
from functools import cmp_to_key
from typing import Any

from tests.servers.couchdb.jsontext import OddFloat

RANKS = {bool: 1, int: 3, float: 3, OddFloat: 3, str: 4, list: 5, dict: 6}


def rank(value: Any) -> int:
    """Return the place of a value's type."""
    if value is None:
        return 0
    return 2 if value is True else RANKS[type(value)]


def compare(left: Any, right: Any) -> int:
    """Return a number below, at or above zero."""
    place: int = rank(left)
    other: int = rank(right)
    if place != other or place <= 2:
        return place - other
    if place == RANKS[str]:
        return _order(text_key(left), text_key(right))
    if place == RANKS[list]:
        return _compare_all(left, right)
    if place == RANKS[dict]:
        return _compare_all(_parts(left), _parts(right))
    return _order(_number(left), _number(right))


def _parts(value: dict[str, Any]) -> list[Any]:
    return [part for pair in value.items() for part in pair]


def _compare_all(left: list[Any], right: list[Any]) -> int:
    for one, other in zip(left, right, strict=False):
        if order := compare(one, other):
            return order
    return len(left) - len(right)


def _order(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _number(value: Any) -> float | int:
    number: float | int = value.value if isinstance(value, OddFloat) else value
    return number


def text_key(text: str) -> tuple[object, ...]:
    """Return the sort key of a text."""
    letters = unicodedata.normalize("NFD", text)
    bases = [letter for letter in letters if not unicodedata.combining(letter)]
    primary = [(_class(letter), letter.casefold()) for letter in bases]
    marks = [letter for letter in letters if unicodedata.combining(letter)]
    return (primary, marks, [letter != letter.lower() for letter in bases], text)


def _class(letter: str) -> int:
    if letter.isalpha():
        return 2
    return 1 if letter.isdigit() else 0


key = cmp_to_key(compare)
