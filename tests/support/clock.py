"""FakeClock: time that passes only when everybody waits for it, so that no test does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count

import gevent
from gevent.event import Event


@dataclass(order=True)
class _Waiter:
    deadline: float
    order: int
    due: Event = field(compare=False, default_factory=Event)


class FakeClock:
    """A `pillows.clock.Clock` under the test's control.

    With `auto` (the default) it jumps to the earliest deadline as soon as the hub is idle, that is when every
    greenlet waits: an hour of back-off passes at once, and waiters wake in the order of their deadlines.
    A greenlet that waits for a real server counts as waiting, so time may run ahead of real I/O; where that
    matters, take ``FakeClock(auto=False)`` and move time with `advance`.

    Args:
        auto: whether time passes by itself.
        wall: what `wall()` says at the start, in seconds since the epoch.

    Attributes:
        waited: every duration that was waited for, in order, in seconds: back-off is read here.
    """

    def __init__(self, *, auto: bool = True, wall: float = 1_700_000_000.0) -> None:
        self.auto = auto
        self.waited: list[float] = []
        self._now = 1000.0
        self._wall_ahead = wall - self._now
        self._waiters: list[_Waiter] = []
        self._order = count()
        self._driver: gevent.Greenlet[..., None] | None = None

    def monotonic(self) -> float:
        """Seconds that never jump back."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._now + self._wall_ahead

    def set_wall(self, seconds: float) -> None:
        """Sets the wall clock, as an operator or NTP may; monotonic time is unaffected."""
        self._wall_ahead = seconds - self._now

    def wait(self, event: Event, seconds: float) -> bool:
        """Waits until `event` is set or `seconds` of this clock's time have passed."""
        self.waited.append(seconds)
        if event.is_set() or seconds <= 0:
            gevent.sleep(0)  # a real wait lets others go on, too
            return event.is_set()
        waiter = _Waiter(self._now + seconds, next(self._order))
        self._waiters.append(waiter)
        self._drive()
        try:
            gevent.wait([event, waiter.due], count=1)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Advances time: greenlets wake in the order of their deadlines, and may wait again meanwhile."""
        until = self._now + seconds
        gevent.idle()  # whoever is about to wait does so from now on
        while self._waiters and min(self._waiters).deadline <= until:
            self._wake_earliest()
            gevent.idle()
        self._now = until
        gevent.idle()

    @property
    def waiting(self) -> int:
        """How many greenlets wait now."""
        return len(self._waiters)

    def _wake_earliest(self) -> None:
        waiter = min(self._waiters)
        self._waiters.remove(waiter)
        self._now = max(self._now, waiter.deadline)
        waiter.due.set()

    def _drive(self) -> None:
        if self.auto and not self._driver:  # a greenlet is falsy once it has ended
            self._driver = gevent.spawn(self._run_by_itself)

    def _run_by_itself(self) -> None:
        gevent.idle()
        while self._waiters:
            self._wake_earliest()
            gevent.idle()


class FastClock:
    """Real time, only faster: unlike `FakeClock` it does not run ahead of real sockets."""

    def __init__(self, speed: float = 180.0) -> None:
        self.speed = speed

    def monotonic(self) -> float:
        return time.monotonic() * self.speed

    wall = monotonic

    def wait(self, event: Event, seconds: float) -> bool:
        return bool(event.wait(seconds / self.speed))
