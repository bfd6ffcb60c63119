"""Limit how long `verify` waits for an unreachable source, since its feed would retry forever."""

from __future__ import annotations

from pillows.clock import Clock
from pillows.errors import RetryableError
from pillows.feed.base import Feed


class SourceTimeout:
    """Watches one reading of a feed.

    Args:
        feed: the feed that is read.
        clock: measures.
        seconds: how long it may be away at a time.
    """

    def __init__(self, feed: Feed, clock: Clock, seconds: float) -> None:
        self._feed = feed
        self._clock = clock
        self._seconds = seconds
        self._since: float | None = None

    def check(self) -> None:
        """Check the source; call it with every batch of the feed, including empty ones.

        Raises:
            RetryableError: it was away for too long.
        """
        if self._feed.trouble is None:
            self._since = None
            return
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        away_seconds = now - self._since
        if away_seconds >= self._seconds:
            raise RetryableError(f"The source was away for {away_seconds:.0f} s: {self._feed.trouble}")
