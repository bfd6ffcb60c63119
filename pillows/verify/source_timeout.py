"""How long `verify` waits for a source that is away: a feed by itself tries again for ever."""

from __future__ import annotations

from pillows.clock import Clock
from pillows.errors import RetryableError
from pillows.feed.base import Feed


class SourcePatience:
    """Watches one reading of a feed.

    Args:
        feed: what is read.
        clock: tells for how long.
        seconds: so long it may be away at a stretch.
    """

    def __init__(self, feed: Feed, clock: Clock, seconds: float) -> None:
        self._feed = feed
        self._clock = clock
        self._seconds = seconds
        self._since: float | None = None

    def look(self) -> None:
        """To be called with every batch of the feed, its signs of life included.

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
