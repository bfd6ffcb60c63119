"""Walks the graph of objects, to see what two parts of a program share."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any


def reach(roots: Iterable[Any]) -> dict[int, Any]:
    """Every object that can be reached, but not through modules, classes and functions' globals."""
    found: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        each = waiting.pop()
        if id(each) in found or isinstance(each, type) or type(each).__name__ in {"module", "function"}:
            continue
        found[id(each)] = each
        waiting += gc.get_referents(each)
    return found
