"""Publish the statuses of this daemon's tails and readers every few seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gevent

from daemon.kafka.service_status import TELL_SECONDS
from pillows.clock import Clock
from pillows.runtime.status import TailStatus


class StatusTeller:
    """Publishes statuses in a separate greenlet, since publishing may wait for brokers.

    Args:
        tell: publishes them; see `ServiceStatus.tell`.
        clock: for the interval.
    """

    def __init__(self, tell: Callable[[Sequence[TailStatus]], None], clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._told_at: float | None = None
        self._telling: gevent.Greenlet[..., None] | None = None

    def tick(self, list_statuses: Callable[[], Sequence[TailStatus]]) -> None:
        """Publish the statuses if the interval is over and the last ones are published."""
        now = self._clock.monotonic()
        is_due = self._told_at is None or now - self._told_at >= TELL_SECONDS
        if is_due and (self._telling is None or self._telling.dead) and (statuses := list_statuses()):
            self._told_at = now
            self._telling = gevent.spawn(self._tell, statuses)

    def close(self) -> None:
        """Stop publishing."""
        if self._telling is not None:
            self._telling.kill(block=False)
