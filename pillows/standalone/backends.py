"""What works beside its caller: greenlets in a patched program, threads in any other.

Where `gevent.monkey` has patched all, whoever waits does so on the hub, and greenlets go on. In any
other program waiting stops the whole thread, and every greenlet in it. There threads do the same work
under one lock, so that they take turns as greenlets do: who waits gives it away, and so does who writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, cast

import gevent
from gevent import monkey
from gevent.event import Event


class Task(Protocol):
    """Something that was started."""

    def join(self) -> None:
        """Waits until it has ended."""

    def kill(self) -> None:
        """Ends it as soon as that is possible."""


class Greenlets:
    """Works in greenlets."""

    def event(self) -> Event:
        """What somebody may wait for."""
        return Event()

    def turn(self) -> AbstractContextManager[object]:
        """Within it nobody else works, except while this one waits or is `away`."""
        return nullcontext()

    def away(self) -> AbstractContextManager[object]:
        """Within it the others work on; for what blocks."""
        return nullcontext()

    def spawn(self, run: Callable[[], None], end: Callable[[], None]) -> Task:  # noqa: ARG002 - it is killed
        """Starts something.

        Args:
            run: what is to be done.
            end: makes `run` return soon, where it can't be killed.
        """
        return cast("Task", gevent.spawn(run))


class Threads(Greenlets):
    """Works in threads, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def event(self) -> Event:
        """What somebody may wait for, in a turn."""
        return cast("Event", _Event(self._lock))

    def turn(self) -> AbstractContextManager[object]:
        """The lock; it must not be held already."""
        return self._lock

    @contextmanager
    def away(self) -> Iterator[None]:
        """Gives the lock away."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def spawn(self, run: Callable[[], None], end: Callable[[], None]) -> Task:
        """Starts a thread, which never keeps the program from ending."""
        return _Thread(self, run, end)


class _Event:
    """As gevent's, for threads that take turns; used in a turn only."""

    def __init__(self, lock: threading.Lock) -> None:
        self._changed = threading.Condition(lock)
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._changed.notify_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._changed.wait_for(self.is_set, timeout)


class _Thread:
    def __init__(self, threads: Threads, run: Callable[[], None], end: Callable[[], None]) -> None:
        self._threads = threads
        self._run = run
        self._end = end
        self._thread = threading.Thread(target=self._in_turn, daemon=True)
        self._thread.start()

    def join(self) -> None:
        with self._threads.away():
            self._thread.join()

    def kill(self) -> None:
        self._end()

    def _in_turn(self) -> None:
        with self._threads.turn():
            self._run()
        gevent.get_hub().destroy(
            destroy_loop=True
        )  # the client of a server may have made one for this thread


def is_patched() -> bool:
    """Whether the program lets greenlets work while it waits."""
    return monkey.is_module_patched("threading")


def background() -> Greenlets:
    """What suits the program."""
    return Greenlets() if is_patched() else Threads()
