"""A reader of a shared feed, and the position at which it joins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator

import msgspec
from gevent.event import Event
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Seq, TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.models import Change, ChangeBatch


class JoinPoint(Struct, frozen=True):
    """A position, and when the shared feed reached it.

    Attributes:
        at: monotonic seconds.
        seq: the position.
        exact: the reader can join at this position only. It may lack changes that an older position of the
            feed covers, since that may come from another copy of the database, which was ahead.
    """

    at: float
    seq: Seq
    exact: bool = False


class Subscriber:
    """A reader of a shared feed, and the batches that wait for it.

    Args:
        held: the position at which it joins.
        identity: the database that the position belongs to.
        wants: whether it needs a change's document.
        max_bytes: it leaves when more than this waits for it.
        tail: the reader's.

    Attributes:
        ready: set when the shared feed has come to the head with it, or has sent so much that the reader must
            take some: from then on it has to take its batches.
        left: whether it has left; the waiting batches are its last.
    """

    def __init__(
        self,
        held: JoinPoint,
        identity: DatabaseIdentity | None,
        wants: Callable[[Change], bool],
        max_bytes: int,
        tail: TailKey = NO_TAIL,
    ) -> None:
        self.tail = tail
        self.held = held
        self.identity = identity
        self.wants = wants
        self.left = False
        self.ready = Event()
        self._max_bytes = max_bytes
        self._waiting: deque[ChangeBatch] = deque()
        self._size_bytes = 0
        self._news = Event()

    def put(self, batch: ChangeBatch) -> None:
        """Add a batch; never blocks."""
        if self._size_bytes + batch.size_bytes > self._max_bytes and self._waiting:
            self.leave()  # it reads on alone, after the waiting batches
            return
        # Copies: a change caches its parsed document, and a transform may alter that.
        changes = [msgspec.structs.replace(change) for change in batch.changes]
        self._waiting.append(replace(batch, changes=changes))
        self._size_bytes += batch.size_bytes
        self._news.set()
        if batch.asked_at is not None or 2 * self._size_bytes > self._max_bytes:
            self.ready.set()

    def leave(self) -> None:
        """End its batches after those that wait."""
        self.left = True
        self._news.set()

    def batches(self, stop: Event, drain: Callable[[], bool]) -> Generator[ChangeBatch, None, None]:
        """Yield the batches, with signs of life, until it has left or a stop is requested.

        Args:
            stop: asks for a stop.
            drain: called then; returns whether the feed ends because of it, so that data already sent still
                arrives.
        """
        stopping = False
        stop.rawlink(self._wake)
        try:
            while True:
                while self._waiting:
                    batch = self._waiting.popleft()
                    self._size_bytes -= batch.size_bytes
                    yield batch
                if self.left:
                    return
                if stop.is_set() and not stopping:
                    stopping = drain()
                    if not stopping:
                        return
                self._news.clear()
                if not self._news.wait(TICK_SECONDS):
                    yield SIGN_OF_LIFE
        finally:
            stop.unlink(self._wake)

    def _wake(self, _: object) -> None:
        self._news.set()
