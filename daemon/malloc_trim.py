"""Gives memory back to the kernel once the work that needed it is done.

A catch-up moves thousands of documents at a time. The C library keeps what they took for the next
ones: 11 of 112 MB with three pillows that had read 40,000 documents each, for as long as they idle.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection

from pillows.runtime.status import State, TailStatus


def trim() -> None:
    """Returns the free pages of the heap to the kernel, where the C library can (glibc)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class Trimmer:
    """Trims once after each catch-up.

    Args:
        trim: gives the memory back.
    """

    def __init__(self, trim: Callable[[], None] = trim) -> None:
        self._trim = trim
        self._busy = False

    def tick(self, statuses: Collection[TailStatus]) -> None:
        """Looks at all tails; trims when the last one of them has caught up."""
        busy = any(status.state is State.CATCHING_UP for status in statuses)
        if self._busy and not busy:
            self._trim()
        self._busy = busy
