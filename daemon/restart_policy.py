"""When a crashed tail is started again, and when not any more: decided by arithmetic alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How the supervisor treats tails that crash or hang.

    Attributes:
        first_delay_seconds: upper bound of the first delay; doubles with every restart in a row.
        max_delay_seconds: upper bound of all delays.
        max_restarts: so many within the period are tried, the next crash makes the tail `failed`.
        period_seconds: the period in which restarts are counted.
        healthy_seconds: a run this long wipes the count (CouchDB's replicator uses 120 s too).
        stuck_seconds: a tail without a sign of life for this long is killed.
        access_retry_seconds: how long a tail that was not let in stays `failed` before one more try;
            CouchDB locks accounts after five bad passwords, so this is slow.
    """

    first_delay_seconds: float = 1.0
    max_delay_seconds: float = 300.0
    max_restarts: int = 10
    period_seconds: float = 600.0
    healthy_seconds: float = 120.0
    stuck_seconds: float = 60.0
    access_retry_seconds: float = 300.0


class Restarts:
    """Counts one tail's restarts and says how long to wait before the next.

    Args:
        policy: the limits.
        random: gives a number in [0, 1): full jitter, so that tails which crashed together do not
            come back together.
    """

    def __init__(self, policy: RestartPolicy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._at: deque[float] = deque()
        self.total = 0

    def crashed(self, *, now: float, ran_seconds: float) -> float | None:
        """Notes a crash.

        Args:
            now: monotonic seconds.
            ran_seconds: how long the run lasted.

        Returns:
            Seconds to wait before the next start; None when there have been too many.
        """
        policy = self._policy
        if ran_seconds >= policy.healthy_seconds:
            self._at.clear()
        while self._at and self._at[0] <= now - policy.period_seconds:
            self._at.popleft()
        if len(self._at) >= policy.max_restarts:
            return None
        ceiling = min(policy.max_delay_seconds, policy.first_delay_seconds * 2.0 ** len(self._at))
        self._at.append(now)
        self.total += 1
        return self._random() * ceiling

    def forget(self) -> None:
        """The operator starts it afresh: earlier crashes no longer count."""
        self._at.clear()
