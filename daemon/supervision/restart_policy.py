"""When a crashed tail is restarted, and when it is given up: arithmetic alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from daemon.config.models import RestartOptions
from pillows.retry.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How the supervisor treats tails that crash or hang.

    Attributes:
        first_delay_seconds: upper bound of the first delay; doubles with every restart in a row.
        max_delay_seconds: upper bound of all delays.
        max_restarts: restarts within the period; the next crash makes the tail `failed`.
        period_seconds: the period in which restarts are counted.
        healthy_seconds: a run of this length resets the count (CouchDB's replicator uses 120 s too).
        stuck_seconds: a tail without a sign of life for this long is killed.
        access_retry_seconds: how long a tail that was refused access stays `failed` before one retry;
            slow, since CouchDB locks accounts after five bad passwords.
    """

    first_delay_seconds: float = 1.0
    max_delay_seconds: float = 300.0
    max_restarts: int = 10
    period_seconds: float = 600.0
    healthy_seconds: float = 120.0
    stuck_seconds: float = 60.0
    access_retry_seconds: float = 300.0


def to_policy(options: RestartOptions) -> RestartPolicy:
    """Return the policy that a configuration asks for."""
    return RestartPolicy(
        first_delay_seconds=options.initial,
        max_delay_seconds=options.max,
        max_restarts=options.max_restarts,
        period_seconds=options.within,
    )


class Restarts:
    """Counts the restarts of one tail, and decides the delay before the next.

    Args:
        policy: the limits.
        random: returns a number in [0, 1): full jitter, so that tails that crashed together do not
            return together.
    """

    def __init__(self, policy: RestartPolicy, random: Callable[[], float]) -> None:
        self._random = random
        self._at: deque[float] = deque()
        self.total = 0
        self.set_policy(policy)

    def set_policy(self, policy: RestartPolicy) -> None:
        """Use other limits from now on."""
        self._policy = policy
        self._backoff = Backoff(
            initial_seconds=policy.first_delay_seconds,
            max_seconds=policy.max_delay_seconds,
            draw=self._random,
        )

    def crashed(self, *, now: float, ran_seconds: float) -> float | None:
        """Count a crash.

        Args:
            now: monotonic seconds.
            ran_seconds: how long the run lasted.

        Returns:
            Seconds to wait before the next start; None when there have been too many.
        """
        policy = self._policy
        if ran_seconds >= policy.healthy_seconds:
            self.forget()
        while self._at and self._at[0] <= now - policy.period_seconds:
            self._at.popleft()
        if len(self._at) >= policy.max_restarts:
            return None
        self._backoff.attempts = len(self._at)
        self._at.append(now)
        self.total += 1
        return self._backoff.next()

    def forget(self) -> None:
        """Forget earlier crashes."""
        self._at.clear()
