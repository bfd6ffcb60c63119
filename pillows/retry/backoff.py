"""How long to wait before trying again: exponential back-off with full jitter, capped.

Full jitter (a uniform draw between zero and the exponential bound) keeps many pillows that lost
the same server from coming back in step (AWS Architecture Blog, "Exponential Backoff And Jitter").
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pillows.errors import AwayError, RetryableError

#: What is away is asked at least this often, so that a pillow goes on within seconds once it is back.
AWAY_SECONDS = 5.0

#: Beyond this many doublings every bound is at its cap; keeps the power small.
_MAX_DOUBLINGS = 32


class Backoff:
    """Delays that grow with every failure in a row. Knows no clock and never sleeps.

    Args:
        initial_seconds: the bound of the first delay; it doubles with every failure.
        max_seconds: the bound never grows beyond this.
        draw: gives a number in [0, 1); replaced by tests.

    Attributes:
        attempts: failures since the last `reset`.
    """

    __slots__ = ("_draw", "_initial_seconds", "_max_seconds", "attempts")

    def __init__(
        self,
        *,
        initial_seconds: float = 0.5,
        max_seconds: float = 60.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._initial_seconds = initial_seconds
        self._max_seconds = max_seconds
        self._draw = draw
        self.attempts = 0

    def next(self, *, at_least_seconds: float | None = None, at_most_seconds: float | None = None) -> float:
        """Counts a failure and returns the seconds to wait before the next try.

        Args:
            at_least_seconds: what the other side asked for (`Retry-After`); never shortened, since
                a server that is asked too early may lock us out for longer.
            at_most_seconds: goes before `max_seconds`, where it is less.
        """
        longest = self._max_seconds if at_most_seconds is None else min(self._max_seconds, at_most_seconds)
        bound = min(longest, self._initial_seconds * 2.0 ** min(self.attempts, _MAX_DOUBLINGS))
        self.attempts += 1
        return max(self._draw() * bound, at_least_seconds or 0.0)

    def reset(self) -> None:
        """Forgets the failures: something succeeded."""
        self.attempts = 0


class Patience:
    """How long to wait after each failure of one thing: long for what is busy, shortly for what is away."""

    __slots__ = ("_away", "_backoff")

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._away = False

    @property
    def attempts(self) -> int:
        """Failures in a row, of the kind of the last one."""
        return self._backoff.attempts

    def after(self, error: RetryableError) -> float:
        """Counts a failure and returns the seconds to wait before the next try."""
        away = isinstance(error, AwayError)
        if away is not self._away:  # what is back and busy was not busy all the time that it was away
            self._backoff.reset()
            self._away = away
        return self._backoff.next(
            at_least_seconds=error.retry_after_seconds, at_most_seconds=AWAY_SECONDS if away else None
        )

    def reset(self) -> None:
        """Forgets the failures: something succeeded."""
        self._backoff.reset()
