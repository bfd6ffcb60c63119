"""Return memory to the kernel after a catch-up.

A catch-up holds thousands of documents at a time, and the C library keeps their memory for later ones:
11 of 112 MB with three pillows that had read 40,000 documents each, for as long as they idle.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection

from pillows.runtime.status import State


def trim() -> None:
    """Return the free pages of the heap to the kernel, if the C library can (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class Trimmer:
    """Trims once after each catch-up.

    Args:
        trim: returns the memory.
    """

    def __init__(self, trim: Callable[[], None] = trim) -> None:
        self._trim = trim
        self._busy = False

    def tick(self, states: Collection[State]) -> None:
        """Trim when the last tail has caught up."""
        busy = State.CATCHING_UP in states
        if self._busy and not busy:
            self._trim()
        self._busy = busy
