"""Time as an object that is passed to all code that waits, so that tests never wait."""

from __future__ import annotations

import time
from typing import Protocol

import gevent
from gevent.event import Event

#: Longest turn: a socket that always has more, or a large block, never switches greenlets by itself.
TURN_SECONDS = 0.01


class Clock(Protocol):
    """Tells the time and waits."""

    def monotonic(self) -> float:
        """Return seconds that never jump: for every duration and deadline."""

    def wall(self) -> float:
        """Return seconds since the epoch: only for what people or other systems read."""

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait until `event` is set, `seconds` at most. Return whether it is set."""


class SystemClock:
    """The machine's own time."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait on the hub, so that other greenlets can run."""
        return bool(event.wait(seconds))


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
