"""The taps of tails, and the samples for their readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from gevent.event import Event

from checkpoints import TailKey
from daemon.streams.samples import show_change, show_rows
from pillows.clock import Clock
from pillows.models import Change, DocumentRows
from pillows.observer import DataObserver, Observer

T = TypeVar("T")

#: Samples that wait for one reader; more are left out.
_WAITING = 100


class Stage(StrEnum):
    """The stage at which a tail is tapped."""

    CHANGE = "change"
    ROWS = "rows"


class Tap:
    """Takes samples of one tail for one reader.

    Args:
        stage: where.
        rate: samples per second, at most.
        values: whether values are shown.
        clock: for the rate.

    Attributes:
        stage: where.
        passed: how many changes or documents have passed since the tap was opened.
    """

    def __init__(self, stage: Stage, *, rate: float, values: bool, clock: Clock) -> None:
        self.stage = stage
        self.passed = 0
        self._rate = rate
        self._values = values
        self._clock = clock
        self._allowed = 1.0
        self._allowed_at = clock.monotonic()
        self._samples: deque[dict[str, Any]] = deque(maxlen=_WAITING)  # a slow reader misses the oldest
        self._any = Event()

    def offer(self, items: Sequence[T], show: Callable[..., dict[str, Any]]) -> None:
        """Take samples, evenly spread, as many as the rate allows.

        Args:
            items: what passes.
            show: turns one into JSON values.
        """
        self.passed += len(items)
        now = self._clock.monotonic()
        earned = (now - self._allowed_at) * self._rate
        self._allowed = min(max(1.0, self._rate), self._allowed + earned)
        self._allowed_at = now
        taken = spread(items, int(self._allowed))
        self._allowed -= len(taken)
        if taken:
            self._samples.extend(show(item, values=self._values) for item in taken)
            self._any.set()

    def next(self, timeout_seconds: float) -> dict[str, Any] | None:
        """Return the next sample; None if there was none in time."""
        if not self._samples:
            self._any.clear()
            self._clock.wait(self._any, timeout_seconds)
        return self._samples.popleft() if self._samples else None


class Taps(Observer, DataObserver):
    """All taps. They observe the data while one is open.

    Args:
        clock: for the rates.
    """

    def __init__(self, clock: Clock) -> None:
        self.data_observers: list[DataObserver] = []
        self._clock = clock
        self._taps: dict[TailKey, list[Tap]] = {}

    @contextmanager
    def open(self, tail: TailKey, stage: Stage, *, rate: float, values: bool) -> Iterator[Tap]:
        """Tap a tail while the context lasts; also while it is stopped and started."""
        tap = Tap(stage, rate=rate, values=values, clock=self._clock)
        self._replace(tail, [*self._taps.get(tail, ()), tap])
        try:
            yield tap
        finally:
            self._replace(tail, [each for each in self._taps[tail] if each is not tap])

    def arrived(self, tail: TailKey, *, changes: Sequence[Change]) -> None:
        """Offer changes to the taps of their tail."""
        for tap in self._taps.get(tail, ()):
            if tap.stage is Stage.CHANGE:
                tap.offer(changes, show_change)

    def transformed(self, tail: TailKey, *, documents: Sequence[DocumentRows]) -> None:
        """Offer rows to the taps of their tail."""
        for tap in self._taps.get(tail, ()):
            if tap.stage is Stage.ROWS:
                tap.offer(documents, show_rows)

    def _replace(self, tail: TailKey, taps: list[Tap]) -> None:
        self._taps[tail] = taps
        if not taps:
            del self._taps[tail]
        self.data_observers[:] = [self] if self._taps else []


def spread(items: Sequence[T], count: int) -> Sequence[T]:
    """Return `count` items at equal distances, including the last one; all items if there are fewer."""
    if count >= len(items):
        return items
    step = len(items) / count if count else 0
    return [items[int((number + 1) * step) - 1] for number in range(count)]
