"""Concurrent work: greenlets in a patched program, threads in any other.

If `gevent.monkey` has patched everything, waits happen on the hub, and other greenlets go on. In any other
program a wait stops the whole thread with all its greenlets. There threads do the same work under one
lock, so they take turns as greenlets do: it is released for every wait and for every write.
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
    """A started task."""

    def join(self) -> None:
        """Wait until it has ended."""

    def kill(self, *, block: bool = True) -> None:
        """End it as soon as possible; wait for its end if it is a greenlet and `block`."""


class GreenletBackend:
    """Runs tasks in greenlets."""

    def event(self) -> Event:
        """Return an event to wait for."""
        return Event()

    def lock(self) -> AbstractContextManager[object]:
        """Enter a block in which no other task runs, except during waits and `unlocked`."""
        return nullcontext()

    def unlocked(self) -> AbstractContextManager[object]:
        """Enter a block in which other tasks run, around a blocking call."""
        return nullcontext()

    def spawn(self, run: Callable[[], None], end: Callable[[], None]) -> Task:  # noqa: ARG002 - it is killed
        """Start a task.

        Args:
            run: the task.
            end: makes `run` return soon, if it cannot be killed.
        """
        return cast("Task", gevent.spawn(run))


class ThreadBackend(GreenletBackend):
    """Runs tasks in threads, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def event(self) -> Event:
        """Return an event to wait for while the lock is held."""
        return cast("Event", _Event(self._lock))

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock, which must not be held already."""
        return self._lock

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Release the lock in the block."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def spawn(self, run: Callable[[], None], end: Callable[[], None]) -> Task:
        """Start a thread that does not keep the program from ending."""
        return _Thread(self, run, end)


class _Event:
    """An event for threads under one lock; used only while it is held."""

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
    def __init__(self, threads: ThreadBackend, run: Callable[[], None], end: Callable[[], None]) -> None:
        self._threads = threads
        self._run = run
        self._end = end
        self._thread = threading.Thread(target=self._in_turn, daemon=True)
        self._thread.start()

    def join(self) -> None:
        with self._threads.unlocked():
            self._thread.join()

    def kill(self, *, block: bool = True) -> None:  # noqa: ARG002 - a thread is never waited for
        self._end()

    def _in_turn(self) -> None:
        with self._threads.lock():
            self._run()
        gevent.get_hub().destroy(
            destroy_loop=True
        )  # the client of a server may have made one for this thread


def is_patched() -> bool:
    """Return whether other greenlets run while the program waits."""
    return monkey.is_module_patched("threading")


def get_backend() -> GreenletBackend:
    """Return the backend for this program."""
    return GreenletBackend() if is_patched() else ThreadBackend()
