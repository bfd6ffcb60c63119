"""JSON of values that a user's code made. What JSON cannot hold is refused, never changed in silence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(decimal_format="number")


class NotJSONError(ValueError):
    """JSON cannot hold a value; the message names its path and type."""


def encode(value: Any) -> bytes:
    """Return a value as JSON. A tuple is an array; a Decimal or a large int keeps its digits.

    Raises:
        NotJSONError: JSON cannot hold a part of it: NaN, a set, bytes, a date, a lone surrogate, a cycle.
    """
    try:
        fault = _find_fault(value)
        return _raise(*fault) if fault else _encoder.encode(value)
    except RecursionError:
        raise NotJSONError("The value is nested too deeply.") from None
    except UnicodeEncodeError:
        return _raise(*(_find_surrogate(value) or ([], "is text that UTF-8 cannot hold")))


def _raise(path: list[Any], problem: str) -> bytes:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in reversed(path))
    place = ascii("".join(steps).removeprefix("."))[1:-1]
    raise NotJSONError(f"{place or 'The value'} {problem}: JSON cannot hold it.")


def _find_fault(value: Any) -> tuple[list[Any], str] | None:
    """Return the path of a part that JSON cannot hold, the last step first, and what it is."""
    if isinstance(value, str | int | msgspec.Raw) or value is None:
        return None
    if isinstance(value, float | Decimal):
        is_finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
        return None if is_finite else ([], f"is {value} ({type(value).__name__})")
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str | int) or isinstance(name, bool):
                return [], f"has the name {name!r} ({type(name).__name__})"
            if found := _find_fault(part):
                found[0].append(str(name))
                return found
        return None
    return _find_in(value) if isinstance(value, list | tuple) else ([], f"is of type {type(value).__name__}")


def _find_in(parts: Iterable[Any]) -> tuple[list[Any], str] | None:
    for index, part in enumerate(parts):
        if found := _find_fault(part):
            found[0].append(index)
            return found
    return None


def _find_surrogate(value: Any) -> tuple[list[Any], str] | None:
    if isinstance(value, str):
        return ([], "is text with a lone surrogate (str)") if _has_surrogate(value) else None
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for step, part in parts:
        if isinstance(step, str) and _has_surrogate(step):
            return [], f"has the name {step!a}, text with a lone surrogate (str)"
        if found := _find_surrogate(part):
            found[0].append(step)
            return found
    return None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
