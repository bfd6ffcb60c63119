"""Slow down for a server that throttles: fewer requests at a time, longer waits, an error after 3 minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gevent.event import Event
from msgspec import Struct

from pillows.clock import Clock
from pillows.couch.errors import ThrottledError
from pillows.retry.backoff import Backoff

T = TypeVar("T")

#: Answers in a row before one more request at a time is sent.
RECOVERY_ANSWERS = 10

#: Shortest wait after a 429 without `Retry-After`.
FIRST_SECONDS = 1.0

#: A request that is throttled for longer fails like any other, and is sent again from the start.
GIVE_UP_SECONDS = 180.0


class ConcurrencyLimit:
    """Additive increase, multiplicative decrease (RFC 5681, section 3.1).

    Args:
        max_requests: most requests at a time.

    Attributes:
        requests: requests at a time now; at least 1.
    """

    def __init__(self, max_requests: int) -> None:
        self.requests = max_requests
        self._max_requests = max_requests
        self._answers = 0

    def decrease(self) -> None:
        """Halve the limit: the server throttled a request."""
        self.requests = max(1, self.requests // 2)
        self._answers = 0

    def record_answer(self) -> None:
        """Count an answer; raise the limit by one after `RECOVERY_ANSWERS` in a row."""
        self._answers += 1
        if self._answers >= RECOVERY_ANSWERS and self.requests < self._max_requests:
            self.requests += 1
            self._answers = 0


class ThrottleWait(Struct, frozen=True, kw_only=True):
    """The wait of a throttled request.

    Attributes:
        error: the server's answer.
        attempt: consecutive answers of this kind.
        delay_seconds: how long the request waits now.
    """

    error: str
    attempt: int
    delay_seconds: float


class Throttle:
    """Sends a request until the server does not throttle it.

    Args:
        limit: lowered and raised by the answers.
        clock: for waits.
        on_wait: called with each wait before it begins, and with None once the request no longer waits.
    """

    def __init__(
        self, limit: ConcurrencyLimit, clock: Clock, on_wait: Callable[[ThrottleWait | None], None]
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._on_wait = on_wait

    def send(self, request: Callable[[], T]) -> T:
        """Return the answer to a request.

        Raises:
            ThrottledError: the server throttled it for `GIVE_UP_SECONDS`.
        """
        backoff = Backoff(initial_seconds=FIRST_SECONDS)
        give_up_at = self._clock.monotonic() + GIVE_UP_SECONDS
        try:
            while True:
                try:
                    answer = request()
                except ThrottledError as error:
                    self._limit.decrease()
                    if self._clock.monotonic() >= give_up_at:
                        raise
                    self._wait(error, backoff)
                else:
                    self._limit.record_answer()
                    return answer
        finally:
            if backoff.attempts:
                self._on_wait(None)

    def _wait(self, error: ThrottledError, backoff: Backoff) -> None:
        seconds = backoff.next(at_least_seconds=error.retry_after_seconds or FIRST_SECONDS)
        self._on_wait(ThrottleWait(error=str(error), attempt=backoff.attempts, delay_seconds=seconds))
        self._clock.wait(Event(), seconds)
