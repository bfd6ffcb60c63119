"""How long greenlets run without giving way: a turn is the time between two switches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import greenlet


class HubMeter:
    """Measure each turn of each greenlet.

    Args:
        clock: `time.monotonic` sees blocking calls too; `time.thread_time` sees this thread's computing only.
        on_turn: called with the seconds of each turn.
        with_hub: measure the hub's own turns too; on a clock that counts waiting they are waiting for work.

    Attributes:
        count: how many turns there were.
        longest_seconds: the longest turn.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        on_turn: Callable[[float], object] = lambda _seconds: None,
        *,
        with_hub: bool = False,
    ) -> None:
        self.count = 0
        self.longest_seconds = 0.0
        self._clock = clock
        self._on_turn = on_turn
        self._with_hub = with_hub
        self._began = clock()

    @contextmanager
    def measure(self) -> Iterator[HubMeter]:
        """Measure until the block ends."""
        gevent.sleep(0)
        self._began = self._clock()
        before = greenlet.settrace(self._switched)
        try:
            yield self
            gevent.sleep(0)
        finally:
            greenlet.settrace(before)

    def _switched(self, _event: str, greenlets: tuple[Any, Any]) -> None:
        now = self._clock()
        seconds, self._began = now - self._began, now
        if greenlets[0] is gevent.get_hub() and not self._with_hub:
            return
        self.count += 1
        self.longest_seconds = max(self.longest_seconds, seconds)
        self._on_turn(seconds)


@contextmanager
def count_turns(retry_delay_seconds: float = 0.005) -> Iterator[list[float]]:
    """Run a greenlet that wants to run all the time. Give the monotonic times at which it did."""
    times: list[float] = []

    def tick() -> None:
        while True:
            times.append(time.monotonic())
            gevent.sleep(retry_delay_seconds)

    ticking = gevent.spawn(tick)
    try:
        yield times
    finally:
        ticking.kill()
