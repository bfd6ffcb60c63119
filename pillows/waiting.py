"""Waiting that can be stopped and that shows it is alive."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from pillows.clock import Clock
from pillows.errors import StoppedError

#: A wait shows signs of life at least this often; a watcher restarts what is silent for a minute.
TICK_SECONDS = 5.0


class Waiter:
    """Waits for one tail.

    Args:
        clock: what measures and waits.
        stop: ends every wait.
        tick: called at least every `TICK_SECONDS` while waiting.
    """

    def __init__(self, clock: Clock, stop: Event, tick: Callable[[], None] = lambda: None) -> None:
        self.clock = clock
        self.stop = stop
        self.tick = tick

    def wait(self, seconds: float) -> None:
        """Waits so long.

        Raises:
            StoppedError: a stop was asked for before or meanwhile.
        """
        deadline = self.clock.monotonic() + seconds
        while True:
            self.tick()
            if self.stop.is_set():
                raise StoppedError
            left = deadline - self.clock.monotonic()
            if left <= 0:
                return
            self.clock.wait(self.stop, min(left, TICK_SECONDS))
