"""JSON of values that a user's code made. What JSON cannot hold is refused, never changed in silence.

Nesting is read and written as deeply as CouchDB stores it.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from pillows.errors import PermanentError

T = TypeVar("T")

#: Levels of nesting that are read and written: CouchDB 3.5 takes 10,000.
DEEPEST_LEVELS = 11_000
#: Stack size that is enough for this nesting: msgspec uses less than 400 bytes per level.
_STACK_BYTES = 8 * 2**20

_encoder = msgspec.json.Encoder(decimal_format="number")

#: Types of most values. They have no parts, and no value that JSON cannot hold.
_PLAIN = frozenset({str, int, bool, type(None), msgspec.Raw})


class NotJSONError(PermanentError, ValueError):
    """JSON cannot hold a value; the message names its path and type."""


def encode(value: Any, path: str = "") -> bytes:
    """Return a value as JSON. A tuple is an array; a Decimal or a large int keeps its digits.

    The bytes of a source (`msgspec.Raw`) stay as they are.

    Args:
        value: the value.
        path: where it is in its row, for messages.

    Raises:
        NotJSONError: JSON cannot hold a part of it: NaN, a set, bytes, a date, a lone surrogate, a cycle.
    """
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    try:
        fault = run_deeply(lambda: _find_fault(value), frames=2)
        return _raise(path, *fault) if fault else run_deeply(lambda: _encoder.encode(value))
    except RecursionError:
        raise NotJSONError(f"{path or 'The value'} is nested too deeply.") from None
    except UnicodeEncodeError:
        return _raise(path, *(_find_surrogate(value) or ([], "is text that UTF-8 cannot hold")))
    except (TypeError, ValueError) as error:
        if isinstance(error, NotJSONError):
            raise
        raise NotJSONError(f"{path or 'The value'} has no JSON form: {error}.") from error


def _raise(start: str, path: list[Any], problem: str) -> bytes:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in reversed(path))
    place = ascii((start + "".join(steps)).removeprefix("."))[1:-1]
    raise NotJSONError(f"{place or 'The value'} {problem}: JSON cannot hold it.")


def run_deeply(work: Callable[[], T], *, frames: int = 1) -> T:
    """Return what `work` returns, which reads or writes JSON of at most `DEEPEST_LEVELS` without waiting.

    Python's limit of recursion counts msgspec's levels, too; its default keeps a stack of unknown size safe.

    Args:
        work: what to do.
        frames: calls for each level.

    Raises:
        RecursionError: the JSON is nested more deeply, or the stack is too small.
    """
    try:
        return work()
    except RecursionError:
        stack_bytes, _ = resource.getrlimit(resource.RLIMIT_STACK)
        # Without a limit the stack of a thread has glibc's default of 2 MiB.
        if stack_bytes == resource.RLIM_INFINITY or stack_bytes < _STACK_BYTES:
            raise
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(frames * DEEPEST_LEVELS)
    try:
        return work()
    finally:
        sys.setrecursionlimit(usual)


def _find_fault(value: Any) -> tuple[list[Any], str] | None:
    """Return the path of a part that JSON cannot hold, the last step first, and a description of the part."""
    if type(value) in _PLAIN or isinstance(value, str | int):
        return None
    if isinstance(value, float | Decimal):
        is_finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
        return None if is_finite else ([], f"is {value} ({type(value).__name__})")
    if isinstance(value, dict):
        for name, part in value.items():
            if type(name) is not str and (not isinstance(name, str | int) or isinstance(name, bool)):
                return [], f"has the name {name!r} ({type(name).__name__})"
            if type(part) not in _PLAIN and (found := _find_fault(part)):
                found[0].append(str(name))
                return found
        return None
    return _find_in(value) if isinstance(value, list | tuple) else ([], f"is of type {type(value).__name__}")


def _find_in(parts: Iterable[Any]) -> tuple[list[Any], str] | None:
    for index, part in enumerate(parts):
        if type(part) not in _PLAIN and (found := _find_fault(part)):
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
