"""How long to wait before a retry: exponential back-off with full jitter, capped.

Full jitter (a uniform draw between zero and the exponential bound) keeps many pillows that lost
the same server from coming back in step (AWS Architecture Blog, "Exponential Backoff And Jitter").
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pillows.errors import AwayError, PartlyWrittenError, RetryableError

#: An unreachable server is asked at least this often, so that a pillow continues within seconds.
AWAY_SECONDS = 5.0

#: Longest wait that a server may ask for: `Retry-After: inf` or 1e12 must not stop a pillow for good.
MAX_RETRY_AFTER_SECONDS = 120.0

#: Beyond this number of doublings every bound is at its cap; keeps the power small.
_MAX_DOUBLINGS = 32


def bound_seconds(failures: int, *, initial_seconds: float, max_seconds: float) -> float:
    """Return the longest wait after a number of failures in a row: it doubles with each, up to a cap.

    Args:
        failures: at least 1.
        initial_seconds: the bound after the first failure.
        max_seconds: the cap.
    """
    return min(max_seconds, initial_seconds * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))


class Backoff:
    """Delays that grow with every failure in a row. It knows no clock and never sleeps.

    Args:
        initial_seconds: the bound of the first delay; it doubles with every failure.
        max_seconds: the cap of the bound.
        draw: returns a number in [0, 1); replaced by tests.

    Attributes:
        attempts: failures since the last `reset`, of the kind of the last one.
    """

    __slots__ = ("_away", "_draw", "_initial_seconds", "_max_seconds", "attempts")

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
        self._away = False
        self.attempts = 0

    def next(self, *, at_least_seconds: float | None = None, at_most_seconds: float | None = None) -> float:
        """Count a failure and return the seconds to wait before the retry.

        Args:
            at_least_seconds: what the server asked for (`Retry-After`); never shortened, since a server
                that is asked too early may lock us out for longer; at most `MAX_RETRY_AFTER_SECONDS`.
            at_most_seconds: a cap that applies where it is below `max_seconds`.
        """
        longest = self._max_seconds if at_most_seconds is None else min(self._max_seconds, at_most_seconds)
        self.attempts += 1
        bound = bound_seconds(self.attempts, initial_seconds=self._initial_seconds, max_seconds=longest)
        # In this order, since nan compares as less than nothing.
        return max(self._draw() * bound, min(MAX_RETRY_AFTER_SECONDS, at_least_seconds or 0.0))

    def after(self, error: RetryableError) -> float:
        """Count a failure and return the seconds to wait: long for a busy server, short for an absent one."""
        away = isinstance(error, AwayError)
        # A server that is back and busy was not busy while it was away.
        if away is not self._away or isinstance(error, PartlyWrittenError):
            self.reset()
            self._away = away
        return self.next(
            at_least_seconds=error.retry_after_seconds, at_most_seconds=AWAY_SECONDS if away else None
        )

    def reset(self) -> None:
        """Forget the failures: something succeeded."""
        self.attempts = 0
