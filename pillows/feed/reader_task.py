"""Run one reading in its own greenlet, with a queue between it and the consumer, bounded in bytes.

The reading may block for long (on the network, or because the queue is full) but must stop at once, and the
consumer must give signs of life while nothing arrives. So the reading runs in its own greenlet and is killed
from outside: gevent interrupts any wait, and the connections are closed by the exception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import gevent
from gevent.event import Event

from checkpoints import Seq
from pillows.clock import Clock
from pillows.couch.http.response import ActivityMonitor
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS
from pillows.feed.batch_cutter import BATCH_BYTES, coalesce
from pillows.feed.documents.loader import DocumentLoader
from pillows.feed.identity_check import IdentityCheck
from pillows.models import Change, ChangeBatch

#: CouchDB drops a reader that takes nothing for 300 s, and keeps nothing for it.
STALLED_SECONDS = 240.0

#: After a stop, a page is awaited while its bytes arrive at least this often; at the head of the feed, only
#: data that has already arrived is read.
QUIET_PAGE_SECONDS = 0.5
QUIET_TAIL_SECONDS = 0.05


class StalledError(Exception):
    """The consumer was idle for so long that the server would close the connection."""


class BoundedQueue:
    """A queue of batches from one producer to one consumer.

    Args:
        max_bytes: `put` waits while more than this is queued.
        stalled_seconds: how long `put` waits at most.
    """

    def __init__(self, *, max_bytes: int, stalled_seconds: float) -> None:
        self._batches: deque[ChangeBatch] = deque()
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._stalled_seconds = stalled_seconds
        self._not_empty = Event()
        self._not_full = Event()
        self._not_full.set()
        self._ended = False
        self._error: Exception | None = None

    def put(self, batch: ChangeBatch) -> None:
        """Add a batch; wait for room first. A batch larger than the bound passes alone.

        Raises:
            StalledError: there was no room for `stalled_seconds`.
        """
        if not self._not_full.wait(self._stalled_seconds):
            raise StalledError
        self._batches.append(batch)
        self._size_bytes += batch.size_bytes
        if self._size_bytes >= self._max_bytes:
            self._not_full.clear()
        self._not_empty.set()

    def end(self, error: Exception | None) -> None:
        """End the queue: after the queued batches `take` raises `error`, or returns None."""
        self._ended, self._error = True, error
        self._not_empty.set()

    def take(self, seconds: float, *, several: bool) -> list[ChangeBatch] | None:
        """Take queued batches.

        Args:
            seconds: how long to wait for the first.
            several: take up to about `BATCH_BYTES`, to coalesce them; otherwise one, so that no more wait
                than the queue holds.

        Returns:
            The batches; empty when none came within `seconds`, or when woken; None at the end of the queue.

        Raises:
            Exception: the error that ended the queue.
        """
        if not self._batches and not self._ended:
            self._not_empty.clear()
            self._not_empty.wait(seconds)
        if self._batches:
            return self._pop(several=several)
        if not self._ended:
            return []
        if self._error is not None:
            raise self._error
        return None

    def wake(self, _: object = None) -> None:
        """End a running `take`."""
        self._not_empty.set()

    def clear(self) -> None:
        """Drop everything that is queued."""
        self._batches.clear()

    def _pop(self, *, several: bool) -> list[ChangeBatch]:
        taken: list[ChangeBatch] = []
        taken_bytes = 0
        while self._batches and (not taken or (several and taken_bytes < BATCH_BYTES)):
            batch = self._batches.popleft()
            taken.append(batch)
            taken_bytes += batch.size_bytes
        self._size_bytes -= taken_bytes
        if self._size_bytes < self._max_bytes:
            self._not_full.set()
        return taken


class ReadCursor:
    """One reading: from a position, first page by page, then at the head.

    Args:
        since: the position.
        stop: ends the reading before its next request.
        identity: makes sure that each response comes from the same database.
        loader: adds documents to batches and hands them over.
        put: takes batches that need no documents; may block.
        wants: whether a change's document is needed at all.

    Attributes:
        following: whether the reading has reached the head.
        held_up_seconds: how long it has waited for whoever takes its batches.
    """

    __slots__ = ("_put", "_wants", "following", "held_up_seconds", "identity", "loader", "since", "stop")

    def __init__(
        self,
        since: Seq,
        stop: Event,
        identity: IdentityCheck,
        loader: DocumentLoader,
        put: Callable[[ChangeBatch], None],
        wants: Callable[[Change], bool],
    ) -> None:
        self.since = since
        self.stop = stop
        self.identity = identity
        self.loader = loader
        self.following = False
        self.held_up_seconds = 0.0
        self._put = put
        self._wants = wants

    def hand_over(self, batch: ChangeBatch) -> None:
        """Hand over a batch at the head with its documents, and advance to its position.

        All pages read before were passed on: the loader is empty.
        """
        for change in batch.changes:
            if change.raw is None and not change.deleted and self._wants(change):
                self.loader.add(batch)
                self.loader.drain()
                break
        else:
            self._put(batch)
        if batch.seq is not None:
            self.since = batch.seq


class ReaderTask:
    """One reading in its own greenlet, and the queue of its batches.

    Args:
        make_cursor: makes the reading's cursor, given where it puts its batches.
        read: reads from the cursor on until a stop is requested, or it fails.
        activity: records every block that arrives.
        clock: for the time to drain.
        max_bytes: bound of the queue.

    Attributes:
        cursor: the reading's.
    """

    def __init__(
        self,
        make_cursor: Callable[[Callable[[ChangeBatch], None]], ReadCursor],
        read: Callable[[ReadCursor], None],
        *,
        activity: ActivityMonitor,
        clock: Clock,
        max_bytes: int,
    ) -> None:
        self._queue = BoundedQueue(max_bytes=max_bytes, stalled_seconds=STALLED_SECONDS)
        self.cursor = make_cursor(self._put)
        self._read = read
        self._activity = activity
        self._clock = clock
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def batches(self, drain_seconds: float) -> Iterator[ChangeBatch]:
        """Yield the reading's batches until it ends, or until it was drained after a stop.

        Args:
            drain_seconds: longest time for responses that are under way after a stop.

        Raises:
            StalledError: the consumer took nothing for `STALLED_SECONDS`.
            PillowError: the error that ended the reading.
        """
        stop = self.cursor.stop
        stop.rawlink(self._queue.wake)
        self._greenlet = gevent.spawn(self._run)
        while not stop.is_set():
            taken = self._queue.take(TICK_SECONDS, several=self.cursor.following)
            if taken is None:
                return
            yield from coalesce(taken) or (SIGN_OF_LIFE,)
        stop.unlink(self._queue.wake)  # still to come, it would end the first wait for the page under way
        yield from self._drain(drain_seconds)

    def close(self) -> None:
        """Kill the reading, whatever it waits for."""
        self.cursor.stop.unlink(self._queue.wake)
        if self._greenlet is not None:
            self._greenlet.kill()
        self._queue.clear()

    def _drain(self, seconds: float) -> Iterator[ChangeBatch]:
        """Yield batches that were in flight at the stop, while bytes keep arriving."""
        until = self._clock.monotonic() + seconds
        while self._clock.monotonic() <= until:
            blocks = self._activity.blocks
            following = self.cursor.following
            quiet_seconds = QUIET_TAIL_SECONDS if following else QUIET_PAGE_SECONDS
            taken = self._queue.take(quiet_seconds, several=following)
            if taken is None or (not taken and self._activity.blocks == blocks):
                return
            yield from coalesce(taken)

    def _put(self, batch: ChangeBatch) -> None:
        began_at = self._clock.monotonic()
        self._queue.put(batch)
        self.cursor.held_up_seconds += self._clock.monotonic() - began_at

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._read(self.cursor)
        except Exception as raised:  # noqa: BLE001 - raised by `take`, in the consumer
            error = raised
        finally:
            self.cursor.loader.close()
            self._queue.end(error)
