"""When a crashed tail is restarted, and when it is given up: arithmetic alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from daemon.config.models import RestartOptions
from pillows.retry.backoff import Backoff

#: A run of this length resets the count of restarts (CouchDB's replicator uses 120 s, too).
HEALTHY_SECONDS = 120.0

#: A tail without a sign of life for this long is killed.
STUCK_SECONDS = 60.0

#: How long a tail that was refused access stays `failed` before one retry; slow, since CouchDB locks accounts
#: after five bad passwords.
ACCESS_RETRY_SECONDS = 300.0


class Restarts:
    """Counts the restarts of one tail, and decides the delay before the next.

    Args:
        policy: the limits.
        random: returns a number in [0, 1): full jitter, so that tails that crashed together do not
            return together.
    """

    def __init__(self, policy: RestartOptions, random: Callable[[], float]) -> None:
        self._random = random
        self._at: deque[float] = deque()
        self.total = 0
        self.set_policy(policy)

    def set_policy(self, policy: RestartOptions) -> None:
        """Use other limits from now on."""
        self._policy = policy
        self._backoff = Backoff(
            initial_seconds=policy.initial,
            max_seconds=policy.max,
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
        if ran_seconds >= HEALTHY_SECONDS:
            self.forget()
        while self._at and self._at[0] <= now - policy.within:
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
