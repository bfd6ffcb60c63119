"""Time as an object that is passed to all code that waits, so that tests never wait."""

from __future__ import annotations

import time
from typing import Protocol

from gevent.event import Event


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
        """Wait on the hub, so that other greenlets go on."""
        return bool(event.wait(seconds))
