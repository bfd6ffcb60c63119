"""Between the greenlet that reads a feed and the iterator that hands it on: a queue, bounded in bytes.

The reader may block for long (on the network, or because the queue is full) and must still be
stopped at once; the iterator must show that it lives while nothing comes. So the reader is a
greenlet of its own, which is killed from outside: gevent interrupts whatever it waits for, and its
connections are closed on the way out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
from gevent.event import Event

T = TypeVar("T")


class StalledError(Exception):
    """The consumer has not taken anything for so long that the server would cut the connection."""


class BoundedQueue(Generic[T]):
    """A queue from one producer to one consumer.

    Args:
        produce: fills the pipe by calling `put`; its end ends the pipe, its error goes to the
            consumer, after everything that was put before.
        max_bytes: `put` waits while more than this waits in the pipe.
        stalled_seconds: how long `put` waits at most.
    """

    def __init__(self, produce: Callable[[], None], *, max_bytes: int, stalled_seconds: float) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._stalled_seconds = stalled_seconds
        self._news = Event()
        self._room = Event()
        self._room.set()
        self._ended = False
        self._error: Exception | None = None
        self._produce = produce
        self._producer: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Starts the producer."""
        self._producer = gevent.spawn(self._run)

    def put(self, item: T, size_bytes: int) -> None:
        """Adds an item; waits for room first. An item larger than the bound passes alone.

        Raises:
            StalledError: there was no room for `stalled_seconds`.
        """
        if not self._room.wait(self._stalled_seconds):
            raise StalledError
        self._items.append((item, size_bytes))
        self._size_bytes += size_bytes
        if self._size_bytes >= self._max_bytes:
            self._room.clear()
        self._news.set()

    def take(self, seconds: float, *, max_bytes: int) -> list[T] | None:
        """Items that wait, up to about `max_bytes` of them.

        Args:
            seconds: how long to wait for the first.
            max_bytes: how much to take.

        Returns:
            The items; none after `seconds` of nothing, or when woken; None at the pipe's end.

        Raises:
            Exception: what ended the producer.
        """
        if not self._items and not self._ended:
            self._news.clear()
            self._news.wait(seconds)
        if self._items:
            return self._pop(max_bytes)
        if not self._ended:
            return []
        if self._error is not None:
            raise self._error
        return None

    def wake(self, _: object = None) -> None:
        """Ends a running `take`."""
        self._news.set()

    def close(self) -> None:
        """Ends the producer, whatever it waits for, and drops what nobody took."""
        if self._producer is not None:
            self._producer.kill()
        self._items.clear()

    def _pop(self, max_bytes: int) -> list[T]:
        taken: list[T] = []
        taken_bytes = 0
        while self._items and taken_bytes < max_bytes:
            item, size_bytes = self._items.popleft()
            taken.append(item)
            taken_bytes += size_bytes
        self._size_bytes -= taken_bytes
        if self._size_bytes < self._max_bytes:
            self._room.set()
        return taken

    def _run(self) -> None:
        try:
            self._produce()
        except Exception as error:  # noqa: BLE001 - raised again in the consumer, by `take`
            self._error = error
        finally:
            self._ended = True
            self._news.set()
