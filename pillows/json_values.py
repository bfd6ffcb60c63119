"""JSON for rows: what it can hold, nothing changed in silence, and as deep as CouchDB stores it.

The bytes of a source pass through. Of Python's values, str, finite int, float and Decimal, bool, None, list,
tuple and dict (with texts as keys) have a JSON form; a Decimal is a number that keeps its digits. date,
datetime, time and UUID become their ISO 8601 or RFC 9562 text. Everything else is refused: an encoder would
make null of NaN, an array of a set and base64 of bytes.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from pillows.errors import PermanentError

T = TypeVar("T")

#: Levels of nesting that are read and written: CouchDB 3.5 takes 10,000.
DEEPEST_LEVELS = 11_000
#: The stack that so many levels surely fit into: msgspec takes less than 400 bytes for one.
_STACK_BYTES = 8 * 2**20

_PLAIN = (str, int, bool, type(None), msgspec.Raw)
_TEXTS = (date, datetime, time, UUID)
_encode = msgspec.json.Encoder(decimal_format="number").encode


class _ForeignError(Exception):
    """JSON cannot hold a value.

    Attributes:
        reason: why, without the value.
        steps: the last parts of its path, from its end.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []


def encode_json(value: Any, path: str = "") -> bytes:
    """Return a value, or a whole row, as JSON; bytes of the source stay as they are.

    Args:
        value: the value.
        path: where it is, for messages.

    Raises:
        PermanentError: it has no JSON form; the message names its path and type, never the value.
    """
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    try:
        run_deeply(lambda: _check(value), frames=2)
        return run_deeply(lambda: _encode(value))
    except _ForeignError as error:
        place = (path + "".join(reversed(error.steps))).removeprefix(".")
        raise PermanentError(f"{_name(place)} has no JSON form: {error.reason}.") from None
    except RecursionError:
        raise PermanentError(f"{_name(path)} has no JSON form: it is nested too deeply.") from None
    except UnicodeEncodeError:
        raise PermanentError(f"{_name(path)} has no JSON form: it has half of a surrogate pair.") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PermanentError(f"{_name(path)} has no JSON form: {error}.") from error


def _check(value: Any) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise _ForeignError(f"it has a key of the type {type(key).__name__}")
        _check_items(value.items(), ".{}")
    elif isinstance(value, list | tuple):
        _check_items(enumerate(value), "[{}]")
    elif kind is float or kind is Decimal:
        if not (math.isfinite(value) if kind is float else value.is_finite()):
            raise _ForeignError(f"it is a {kind.__name__} that is not finite")
    elif kind not in _TEXTS and not isinstance(value, Enum):
        raise _ForeignError(f"it is of the type {kind.__name__}")


def _check_items(items: Iterable[tuple[Any, Any]], step: str) -> None:
    current: Any = None
    try:
        for key, value in items:
            current = key
            _check(value)
    except _ForeignError as error:
        error.steps.append(step.format(current))
        raise


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


def _name(path: str) -> str:
    return f"The value at {path!r}" if path else "The value"
