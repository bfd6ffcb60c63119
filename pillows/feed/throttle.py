"""Asking a server that says 429: as late as it wants, told to the operator, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gevent.event import Event

from pillows.clock import Clock
from pillows.couch.errors import ThrottledError
from pillows.feed.concurrency_limit import ConcurrencyLimit
from pillows.retry.backoff import Backoff

T = TypeVar("T")

#: A server that says 429 without a number is left alone for a second or so, then for longer.
FIRST_SECONDS = 1.0

#: One that says nothing else for so long fails like any other: what it is asked for is asked anew.
LONGEST_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """A request waits, since the server asked us to slow down.

    Attributes:
        error: its answer.
        attempt: how often it gave that in a row.
        delay_seconds: how long is waited now.
    """

    error: str
    attempt: int
    delay_seconds: float


class Throttle:
    """Asks until the server serves.

    Args:
        pace: told of each answer.
        clock: for waits.
        tell: told before each wait; None once the request waits no more.
    """

    def __init__(
        self, pace: ConcurrencyLimit, clock: Clock, tell: Callable[[Throttled | None], None]
    ) -> None:
        self._pace = pace
        self._clock = clock
        self._tell = tell

    def until_served(self, ask: Callable[[], T]) -> T:
        """What `ask` gives, once the server does not throttle it.

        Raises:
            ThrottledError: it did for `LONGEST_SECONDS`.
        """
        backoff = Backoff(initial_seconds=FIRST_SECONDS)
        give_up_at = self._clock.monotonic() + LONGEST_SECONDS
        try:
            while (served := self._attempt(ask, backoff, give_up_at)) is None:
                pass
        finally:
            if backoff.attempts:
                self._tell(None)
        return served[0]

    def _attempt(self, ask: Callable[[], T], backoff: Backoff, give_up_at: float) -> tuple[T] | None:
        """The answer; None after a wait, where there was none."""
        try:
            answer = ask()
        except ThrottledError as error:
            self._pace.throttled()
            if self._clock.monotonic() >= give_up_at:
                raise
            self._wait(error, backoff)
            return None
        self._pace.went_well()
        return (answer,)

    def _wait(self, error: ThrottledError, backoff: Backoff) -> None:
        seconds = backoff.next(at_least_seconds=error.retry_after_seconds or FIRST_SECONDS)
        self._tell(Throttled(error=str(error), attempt=backoff.attempts, delay_seconds=seconds))
        self._clock.wait(Event(), seconds)
