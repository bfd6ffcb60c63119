"""How deep keys and values may be nested.

Whatever goes through one takes a few frames of Python's stack for each level, of the thousand that
there are. Without a limit, what one caller stored another could not read, who has fewer left.
"""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 100  # dicts and lists within each other

_NESTING = (dict, list, tuple)

TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"


def is_too_deep(text: str, value: Any, *, within: int = 0) -> bool:
    """Whether a value, given with its JSON, is too deep for a place that is `within` deep already."""
    left = MAX_DEPTH - within
    return _brackets(text) > left and _is_deeper(value, left)


def decode(text: str) -> Any:
    """The value that is written as JSON.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        if _brackets(text) <= MAX_DEPTH:
            raise  # it is the caller who is too deep
        raise ValueError(TOO_DEEP) from None
    if _brackets(text) > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(TOO_DEEP)
    return value


def _brackets(text: str) -> int:
    """How deep a text is at most. Most have few, and that is quickly counted."""
    return text.count("[") + text.count("{")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value] if isinstance(value, _NESTING) else []
    for _ in range(levels):
        if not level:
            return False
        level = [part for each in level for part in _parts(each) if isinstance(part, _NESTING)]
    return bool(level)


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
