"""A reader in a group of those who share a connection, and the position that it joins at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import msgspec
from gevent.event import Event

from checkpoints import Seq
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.models import Change, ChangeBatch


@dataclass(frozen=True, slots=True)
class JoinPoint:
    """A position, and when the group held it.

    Attributes:
        at: monotonic seconds.
        seq: the position.
        exact: whoever joins at it holds this very position, and may have seen less than an older one of
            the group covers: that may come from another copy of the database, which was ahead.
    """

    at: float
    seq: Seq
    exact: bool = False


class Subscriber:
    """A reader in a group: what waits for it.

    Args:
        held: the position that it joins at.
        identity: the database that the position belongs to.
        wants: whether it needs a change's document.
        max_bytes: it leaves when more than this waits for it.

    Attributes:
        left: it is not in the group any more; what waits is the last it gets.
    """

    def __init__(
        self,
        held: JoinPoint,
        identity: DatabaseIdentity | None,
        wants: Callable[[Change], bool],
        max_bytes: int,
    ) -> None:
        self.held = held
        self.identity = identity
        self.wants = wants
        self.left = False
        self._max_bytes = max_bytes
        self._waiting: deque[ChangeBatch] = deque()
        self._size_bytes = 0
        self._news = Event()

    def put(self, batch: ChangeBatch) -> None:
        """Adds a batch; never blocks."""
        if self._size_bytes + batch.size_bytes > self._max_bytes and self._waiting:
            self.leave()  # it reads on alone, behind what it has
            return
        # Copies: a change remembers what was parsed of it, and a transform may alter that.
        changes = [msgspec.structs.replace(change) for change in batch.changes]
        self._waiting.append(replace(batch, changes=changes))
        self._size_bytes += batch.size_bytes
        self._news.set()

    def leave(self) -> None:
        """It gets nothing more."""
        self.left = True
        self._news.set()

    def batches(self, stop: Event, drains: Callable[[], bool]) -> Generator[ChangeBatch, None, None]:
        """What comes, with signs of life, until it has left or a stop is asked for.

        Args:
            stop: asks for a stop.
            drains: called then; whether the group ends for its sake, so that what has been sent
                already still comes.
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
                    stopping = drains()
                    if not stopping:
                        return
                self._news.clear()
                if not self._news.wait(TICK_SECONDS):
                    yield SIGN_OF_LIFE
        finally:
            stop.unlink(self._wake)

    def _wake(self, _: object) -> None:
        self._news.set()
