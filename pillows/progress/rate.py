"""How many of something happen in a second, lately."""

from __future__ import annotations

from collections import deque

from pillows.clock import Clock

#: A rate is an average over this time: a large batch may take some seconds.
WINDOW_SECONDS = 30.0
#: What happens within this time is counted together.
STEP_SECONDS = 1.0


class Rate:
    """Counts over the last `WINDOW_SECONDS`, or since it was started if that is less.

    Args:
        clock: for all ages.
    """

    __slots__ = ("_began_at", "_clock", "_counts")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque()  # monotonic seconds, and how many from then on
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self._began_at = self._clock.monotonic()
        self._counts.clear()

    def add(self, count: int) -> None:
        """Count something that happened now."""
        now = self._clock.monotonic()
        if self._counts and now - self._counts[-1][0] < STEP_SECONDS:
            now, before = self._counts.pop()
            count += before
        self._counts.append((now, count))
        self._drop_old()

    @property
    def recent(self) -> int:
        """How many happened within the window."""
        self._drop_old()
        return sum(count for _, count in self._counts)

    @property
    def per_second(self) -> float:
        """How many happened in a second, on average."""
        age_seconds = self._clock.monotonic() - self._began_at
        return self.recent / min(WINDOW_SECONDS, max(STEP_SECONDS, age_seconds))

    def _drop_old(self) -> None:
        begin = self._clock.monotonic() - WINDOW_SECONDS
        while self._counts and self._counts[0][0] <= begin:
            self._counts.popleft()
