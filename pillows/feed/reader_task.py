"""One reading in a greenlet of its own; how long it is waited for, while nothing comes and after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checkpoints import Seq
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.feed.bounded_queue import BoundedQueue
from pillows.feed.reader import Hands, Reading
from pillows.feed.requests import BATCH_BYTES, coalesce
from pillows.models import ChangeBatch

#: CouchDB gives up a reader that takes nothing for 300 s, and keeps nothing for it.
STALLED_SECONDS = 240.0

#: After a stop, a page is waited for while its bytes come at least this often; at the head of the
#: feed, what has been sent already is taken along.
QUIET_PAGE_SECONDS = 0.5
QUIET_TAIL_SECONDS = 0.05


class Session:
    """One reading in a greenlet of its own, and the pipe to it.

    Args:
        hands: what the reading works with.
        since: the position.
        identity: the database that it belongs to; None: whichever is there.
        max_bytes: so much may wait in the pipe.
    """

    def __init__(self, hands: Hands, since: Seq, identity: DatabaseIdentity | None, max_bytes: int) -> None:
        self._hands = hands
        self._reading = Reading(hands, self._put, since, identity)
        self._pipe: BoundedQueue[ChangeBatch] = BoundedQueue(
            self._reading.run, max_bytes=max_bytes, stalled_seconds=STALLED_SECONDS
        )

    @property
    def identity(self) -> DatabaseIdentity | None:
        """The database that was read."""
        return self._reading.identity

    def batches(self, drain_seconds: float) -> Iterator[ChangeBatch]:
        """What the reading puts into the pipe, until its end, or until it was drained after a stop."""
        self._hands.stop.rawlink(self._pipe.wake)
        self._pipe.start()
        while not self._hands.stop.is_set():
            taken = self._pipe.take(TICK_SECONDS, max_bytes=BATCH_BYTES)
            if taken is None:
                return
            yield from self._shaped(taken) if taken else (SIGN_OF_LIFE,)
        yield from self._drained(drain_seconds)

    def _drained(self, drain_seconds: float) -> Iterator[ChangeBatch]:
        """What had been asked for when the stop came, while it keeps coming."""
        clock, activity = self._hands.clock, self._hands.source.activity
        until = clock.monotonic() + drain_seconds
        while clock.monotonic() <= until:
            blocks = activity.blocks
            patience = QUIET_TAIL_SECONDS if self._reading.following else QUIET_PAGE_SECONDS
            taken = self._pipe.take(patience, max_bytes=BATCH_BYTES)
            if taken is None or (not taken and activity.blocks == blocks):
                return
            yield from self._shaped(taken)

    def close(self) -> None:
        """Ends the reading, whatever it waits for."""
        self._hands.stop.unlink(self._pipe.wake)
        self._pipe.close()

    def _put(self, batch: ChangeBatch) -> None:
        self._pipe.put(batch, batch.size_bytes)

    def _shaped(self, taken: Sequence[ChangeBatch]) -> Sequence[ChangeBatch]:
        """At the head, what has gathered in fewer batches."""
        return coalesce(taken) if self._reading.following else taken
