"""Proxies that hold back what CouchDB sends at once."""

from __future__ import annotations

from pillows.clock import Clock


class ProxyBufferingDetector:
    """Notices a proxy that holds back a continuous feed until it ends.

    CouchDB sends a line end at once, so a feed whose first byte comes with its end was held back.

    Args:
        clock: tells when what came.
        timeout_seconds: how often CouchDB says something at least.
    """

    def __init__(self, clock: Clock, timeout_seconds: float) -> None:
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._began_at = clock.monotonic()
        self._first_seconds: float | None = None

    def saw(self) -> None:
        """A block came."""
        if self._first_seconds is None:
            self._first_seconds = self.age_seconds

    @property
    def age_seconds(self) -> float:
        """Since the request was sent."""
        return self._clock.monotonic() - self._began_at

    @property
    def buffered(self) -> bool:
        """Whether the response was held back; asked at its end."""
        late = 0.8 * self._timeout_seconds
        return self._first_seconds is not None and self._first_seconds > max(late, self.age_seconds - 1.0)
