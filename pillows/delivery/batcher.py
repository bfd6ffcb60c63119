"""Group commit: the next batch grows while the writer is busy; a free writer takes whatever has gathered.

So a slow target gets large batches and an idle one gets each change at once, without tuning, as in the group
commit of databases. `linger` waits a little for more documents, for targets that charge per request. While a
backlog is read, the writer waits a moment for a full batch anyway: each batch costs a target's client as much
time as some hundred documents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from gevent.event import Event
from pydantic import Field

from pillows.clock import Clock
from pillows.options import Duration, Options, Size
from pillows.retry.cancellable import TICK_SECONDS

#: Longest wait of an idle writer; the first item, or the end, wakes it at once. Long, since hundreds of idle
#: pillows wait here.
IDLE_SECONDS = 60.0

#: Longest wait for a full batch while more items follow.
GATHER_SECONDS = 0.05

#: `max_docs` of a pillow with worker processes, unless configured: into PostgreSQL, batches of 1000 took the
#: daemon no more CPU time a document than batches of 2000, and 5 MB less.
WORKERS_MAX_DOCS = 1000

Item = TypeVar("Item")


class BatchOptions(Options):
    """The bounds of a batch, which holds the documents that are written together.

    Attributes:
        max_docs: most documents. With `load.workers` it is 1000 unless given.
        max_bytes: most bytes of documents.
        linger: wait for more documents, for targets that charge per request.
        max_in_flight: most batches that are written at once, for targets that answer late
            (`elasticsearch`). The changes of each document stay in order.
    """

    max_docs: int = Field(default=2000, ge=1, le=100_000)
    max_bytes: Size = Field(default=5 * 2**20, gt=0)
    linger: Duration = Field(default=0.0, ge=0, le=60)
    max_in_flight: int = Field(default=1, ge=1, le=16)


class Batcher(Generic[Item]):
    """Collects items until the writer takes them: one growing batch, and a bounded queue of full ones.

    Args:
        options: the bounds of a batch.
        clock: measures the linger.
        tick: called while waiting, at least every `TICK_SECONDS`.
        event: creates the events to wait for.
        max_queued: most full batches that wait for the writer, in addition to the one that grows.
    """

    def __init__(
        self,
        options: BatchOptions,
        clock: Clock,
        tick: Callable[[], None] = lambda: None,
        event: Callable[[], Event] = Event,
        max_queued: int = 0,
    ) -> None:
        self._max_docs, self._max_bytes = options.max_docs, options.max_bytes
        self._linger_seconds = options.linger
        self._more_follow = False
        self._max_queued = max_queued
        self._clock = clock
        self._tick = tick
        self._items: list[Item] = []
        self._bytes = 0
        self._ready: deque[list[Item]] = deque()
        self._not_empty = event()
        self._not_full = event()
        self._not_full.set()
        self._full = event()
        self._closed = event()
        self._error: Exception | None = None

    def add(self, item: Item, size_bytes: int) -> bool:
        """Add an item; wait while the growing batch is full. Return whether it waited.

        Raises:
            The error that the writer ended with.
        """
        waited = False
        # A larger item passes alone.
        while (
            self._items
            and (len(self._items) >= self._max_docs or self._bytes + size_bytes > self._max_bytes)
            and not self._queue_full_batch()
        ):
            waited = True
            self._not_full.clear()
            self._clock.wait(self._not_full, TICK_SECONDS)
            self._tick()
        if self._error is not None:
            raise self._error
        self._items.append(item)
        self._bytes += size_bytes
        if len(self._items) == 1:
            self._not_empty.set()
        if len(self._items) >= self._max_docs or self._bytes >= self._max_bytes:
            self._full.set()
        return waited

    def take(self) -> list[Item] | None:
        """Return the next batch; wait for a first item. None once closed and empty."""
        while not self._items and not self._ready:
            if self._closed.is_set():
                return None
            self._not_empty.clear()
            self._clock.wait(self._not_empty, IDLE_SECONDS)
        wait_seconds = max(self._linger_seconds, GATHER_SECONDS if self._more_follow else 0.0)
        if wait_seconds and not self._ready and not self._closed.is_set():
            self._clock.wait(self._full, wait_seconds)
        if not self._ready and not self._items:
            return None  # it was abandoned meanwhile
        if not self._ready:
            self._queue_growing_batch()
        self._not_full.set()
        return self._ready.popleft()

    @property
    def waiting(self) -> tuple[int, int]:
        """Return the items that wait for the writer, and the bytes of the growing batch."""
        return len(self._items) + sum(map(len, self._ready)), self._bytes

    def expect(self, *, more: bool) -> None:
        """Tell whether more items follow at once: then it pays to wait for a full batch.

        Documents that were added before it ends are written at once.
        """
        if self._more_follow and not more:
            self.flush()
        self._more_follow = more

    def flush(self) -> None:
        """Stop waiting for more documents: release the added ones."""
        if self._items:
            self._full.set()

    def close(self) -> None:
        """Accept no more items: `take` returns the remaining ones, then None."""
        self._closed.set()
        self._full.set()
        self._not_empty.set()

    def fail(self, error: Exception) -> None:
        """Drop everything, since the writer has ended; every later `add` raises the first error."""
        self._error = self._error or error
        self._items, self._bytes = [], 0
        self._ready.clear()
        self._not_full.set()

    def _queue_full_batch(self) -> bool:
        """Make room by queueing the full batch, if the queue has room."""
        if len(self._ready) >= self._max_queued:
            self._full.set()
            return False
        self._queue_growing_batch()
        return True

    def _queue_growing_batch(self) -> None:
        self._ready.append(self._items)
        self._items, self._bytes = [], 0
        self._full.clear()
