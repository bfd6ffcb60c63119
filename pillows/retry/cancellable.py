"""Waits that end at a stop, and give signs of life."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent
from gevent.event import Event

from pillows.clock import Clock
from pillows.errors import StoppedError
from pillows.user_code import confine

#: A wait gives signs of life at least this often; a tail that is silent for a minute is restarted.
TICK_SECONDS = 5.0

#: After a stop, longest wait for an answer that is on its way.
LAST_SECONDS = 0.3

T = TypeVar("T")


class StopAwareWaiter:
    """Waits for one tail.

    Args:
        clock: measures and waits.
        stop: ends every wait.
        tick: called at least every `TICK_SECONDS` while waiting.
    """

    def __init__(self, clock: Clock, stop: Event, tick: Callable[[], None] = lambda: None) -> None:
        self.clock = clock
        self.stop = stop
        self.tick = tick

    def wait(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: a stop was requested before or meanwhile.
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

    def run_cancellable(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` in a greenlet of its own, which ends soon after a stop.

        Use this only for calls that may be given up at any point, such as requests that only read.

        Raises:
            StoppedError: a stop ended it.
        """
        done = Event()
        doing = gevent.spawn(_outcome, attempt)
        doing.rawlink(lambda _: done.set())
        try:
            gevent.wait([done, self.stop], count=1)
            if not done.is_set() and not self.clock.wait(done, LAST_SECONDS):
                raise StoppedError
            result, error = doing.get()
        finally:
            doing.kill()
        if error is not None:
            raise error
        return result[0]


def _outcome(attempt: Callable[[], T]) -> tuple[tuple[T, ...], Exception | None]:
    """Return an attempt's result, or its error: gevent prints what a greenlet raises."""
    try:
        return (attempt(),), None
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
        return (), confine(error)
