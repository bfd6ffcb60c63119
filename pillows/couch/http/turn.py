"""Give way to other greenlets by time, for work that never waits."""

from __future__ import annotations

import time

import gevent

#: Longest turn: a socket that always has more, or a large block, never switches greenlets by itself.
TURN_SECONDS = 0.01


class Turn:
    """Measures how long a greenlet has worked since it last gave way."""

    __slots__ = ("_ends_at",)

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + TURN_SECONDS

    def give_way(self) -> None:
        """Let other greenlets run once `TURN_SECONDS` have passed."""
        if time.monotonic() >= self._ends_at:
            gevent.sleep(0)
            self._ends_at = time.monotonic() + TURN_SECONDS
