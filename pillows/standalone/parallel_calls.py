"""Makes several calls at once and waits for all: in greenlets or in threads."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import gevent
from gevent.pool import Pool

#: The result of a call, or its error.
Outcome = tuple[Any, Exception | None]
Calls = Sequence[Callable[[], Any]]


class GreenletCalls:
    """Calls in greenlets.

    Args:
        max_parallel: calls at once.
        timeout_seconds: a call that takes longer is ended; None: no limit.
    """

    def __init__(self, max_parallel: int, timeout_seconds: float | None) -> None:
        self._max_parallel = max_parallel
        self._timeout_seconds = timeout_seconds

    def __call__(self, calls: Calls) -> list[Outcome]:
        """Return the outcome of each call, in their order."""
        pool = Pool(self._max_parallel)
        greenlets = []
        try:
            for call in calls:
                greenlets.append(pool.spawn(self._caught, call))  # noqa: PERF401 - killed if this is
            gevent.joinall(greenlets)  # gives them in the order of their ends
        except BaseException:
            pool.kill()  # the caller was stopped: no call begins after that
            raise
        return [greenlet.get() for greenlet in greenlets]

    def _caught(self, call: Callable[[], Any]) -> Outcome:
        with gevent.Timeout(self._timeout_seconds, _late(self._timeout_seconds)):
            return _outcome(call)


class ThreadCalls:
    """Calls in threads, each with its place: the first call is always of the first file.

    Args:
        max_parallel: calls at once.
        timeout_seconds: a call that takes longer is abandoned; None: no limit.
    """

    def __init__(self, max_parallel: int, timeout_seconds: float | None) -> None:
        self._max_parallel = max_parallel
        self._timeout_seconds = timeout_seconds
        self._running: dict[int, threading.Thread] = {}

    def __call__(self, calls: Calls) -> list[Outcome]:
        """Return the outcome of each call, in their order."""
        busy = [place for place, thread in self._running.items() if thread.is_alive()]
        outcomes: dict[int, Outcome] = dict.fromkeys(busy, (None, _busy()))
        waiting = deque((place, call) for place, call in enumerate(calls) if place not in outcomes)
        ended: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        deadlines: dict[int, float] = {}
        while len(outcomes) < len(calls):
            while waiting and len(deadlines) < self._max_parallel:
                place, call = waiting.popleft()
                deadlines[place] = time.monotonic() + (self._timeout_seconds or math.inf)
                self._start(place, call, ended)
            found = self._next(ended, deadlines)
            outcomes |= found
            for place in found:
                del deadlines[place]
        return [outcomes[place] for place in range(len(calls))]

    def _start(self, place: int, call: Callable[[], Any], ended: SimpleQueue[tuple[int, Outcome]]) -> None:
        def run() -> None:
            ended.put((place, _outcome(call)))

        self._running[place] = threading.Thread(target=run, daemon=True)
        self._running[place].start()

    def _next(
        self, ended: SimpleQueue[tuple[int, Outcome]], deadlines: Mapping[int, float]
    ) -> dict[int, Outcome]:
        """Return the outcomes of the calls that end next, or are late."""
        left = min(deadlines.values()) - time.monotonic()
        try:
            place, outcome = ended.get(timeout=max(0.0, left) if left < math.inf else None)
        except Empty:
            now = time.monotonic()
            return {p: (None, _late(self._timeout_seconds)) for p, until in deadlines.items() if until <= now}
        del self._running[place]
        return {place: outcome} if place in deadlines else {}  # else it was late, and was counted as such


def _outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 - the caller is told of it, once all have ended
        return None, error
    except SystemExit as error:  # would end a thread without a word
        return None, RuntimeError(repr(error))


def _late(seconds: float | None) -> TimeoutError:
    return TimeoutError(f"no answer within {seconds} s; what was done is not known")


def _busy() -> TimeoutError:
    return TimeoutError("a call that took too long has not ended yet; this one was not made")
