"""Makes several calls at once and waits for all: in greenlets or in threads."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import gevent
from gevent.lock import RLock
from gevent.pool import Pool

from checkpoints.files.fork_safety import register_for_fork

_IDLE_SECONDS = 1.0  # after which a thread without calls ends

#: The result of a call, or its error.
CallOutcome = tuple[Any, Exception | KeyboardInterrupt | None]
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
        self._lock = RLock()

    def __call__(self, calls: Calls) -> list[CallOutcome]:
        """Return the outcome of each call, in their order."""
        with self._lock:
            return self._call_all(calls)

    def close(self) -> None:
        """End nothing: each greenlet ends with its call."""

    def _call_all(self, calls: Calls) -> list[CallOutcome]:
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

    def _caught(self, call: Callable[[], Any]) -> CallOutcome:
        with gevent.Timeout(self._timeout_seconds, _late(self._timeout_seconds)):
            return _outcome(call)


class ThreadCalls:
    """Calls in threads, each with its place: the first call is always of the first file.

    The threads are kept for the next calls, and end once there has been none for a while. Without a timeout
    the caller makes the last call itself.

    Args:
        max_parallel: calls at once.
        timeout_seconds: a call that takes longer is abandoned; None: no limit.
    """

    def __init__(self, max_parallel: int, timeout_seconds: float | None) -> None:
        self._max_parallel = max_parallel
        self._timeout_seconds = timeout_seconds
        self.abandon()

    def __call__(self, calls: Calls) -> list[CallOutcome]:
        """Return the outcome of each call, in their order."""
        with self._lock:
            return self._call_all(calls)

    def close(self) -> None:
        """End the threads; those that are still in a call end after it."""
        for worker in self._workers.values():
            worker.end()

    def abandon(self) -> None:
        """Start without threads: a forked child has none."""
        self._lock = threading.RLock()
        self._workers: defaultdict[int, _Worker] = defaultdict(_Worker)
        register_for_fork(self)

    def _call_all(self, calls: Calls) -> list[CallOutcome]:
        places = range(len(calls))
        outcomes: dict[int, CallOutcome] = {p: (None, _busy()) for p in places if self._workers[p].is_busy}
        waiting = deque(place for place in places if place not in outcomes)
        ended: SimpleQueue[tuple[int, CallOutcome]] = SimpleQueue()
        deadlines: dict[int, float] = {}
        while len(outcomes) < len(calls):
            free = self._max_parallel - len(deadlines)
            if not waiting or not free:
                found = self._next(ended, deadlines)
                outcomes |= found
                for place in found:
                    del deadlines[place]
                continue
            place = waiting.popleft()
            if self._timeout_seconds is None and (not waiting or self._max_parallel == 1):
                # The caller would only wait; with more to start it must not be held up. With 1 MiB blocks on
                # two busy cores this made 0.78 of parallel_write's speed (median of 9) 1.09 of it: two
                # changes of threads less.
                outcomes[place] = _outcome(calls[place])
            else:
                deadlines[place] = time.monotonic() + (self._timeout_seconds or math.inf)
                self._workers[place].start(place, calls[place], ended)
        return [outcomes[place] for place in places]

    def _next(
        self, ended: SimpleQueue[tuple[int, CallOutcome]], deadlines: Mapping[int, float]
    ) -> dict[int, CallOutcome]:
        """Return the outcomes of the calls that end next, or are late."""
        left = min(deadlines.values()) - time.monotonic()
        try:
            place, outcome = ended.get(timeout=max(0.0, left) if left < math.inf else None)
        except Empty:
            now = time.monotonic()
            return {p: (None, _late(self._timeout_seconds)) for p, until in deadlines.items() if until <= now}
        return {place: outcome} if place in deadlines else {}  # else it was late, and was counted as such


class _Worker:
    """A thread that makes one call after the other, and ends when it has had none for a while.

    Attributes:
        is_busy: whether it is in a call.
    """

    def __init__(self) -> None:
        self.is_busy = False
        self._guard = threading.Lock()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._runs = False

    def start(self, place: int, call: Callable[[], Any], ended: SimpleQueue[tuple[int, CallOutcome]]) -> None:
        """Start a call; its place and outcome are put into `ended`."""

        def run() -> None:
            outcome = _outcome(call)
            self.is_busy = False
            ended.put((place, outcome))

        self.is_busy = True
        with self._guard:
            self._calls.put(run)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        """End the thread, after the call that it is in."""
        with self._guard:
            if self._runs:
                self._calls.put(None)

    def _run(self) -> None:
        while run := self._take():
            run()
            del run  # and what it holds

    def _take(self) -> Callable[[], None] | None:
        """Return the next call; None where the thread ends."""
        while True:
            with suppress(Empty):
                if run := self._calls.get(timeout=_IDLE_SECONDS):
                    return run
            with self._guard:
                if self._calls.empty():
                    self._runs = False
                    return None


def _outcome(call: Callable[[], Any]) -> CallOutcome:
    try:
        return call(), None
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the caller raises it, once all have ended
        return None, error
    except BaseException as error:  # noqa: BLE001 - would end a thread or greenlet without a word
        return None, RuntimeError(repr(error))


def _late(seconds: float | None) -> TimeoutError:
    return TimeoutError(f"no answer within {seconds} s; the call may have taken effect or not")


def _busy() -> TimeoutError:
    return TimeoutError("a call that took too long has not ended yet; this one was not made")
