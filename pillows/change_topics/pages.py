"""Collect the changes that arrive from the feed, to write them in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import gevent
from gevent.event import Event
from msgspec import Struct

from pillows.feed.base import DatabaseIdentity
from pillows.models import ChangeBatch

#: Most changes of one transaction, and most bytes of their rows in the feed.
PAGE_CHANGES = 1000
PAGE_BYTES = 2**20


class Piece(Struct, frozen=True):
    """A batch of the feed, and the database that it comes from.

    Attributes:
        batch: the batch.
        identity: of the database; None if it is not known yet.
    """

    batch: ChangeBatch
    identity: DatabaseIdentity | None


class Pages:
    """Reads the feed in a greenlet of its own, so that reading and writing overlap.

    A waiting page grows up to a limit. Then the feed pauses, and with it the server.

    Args:
        batches: the feed.
        get_identity: returns the database that the last batch comes from.
    """

    def __init__(
        self,
        batches: Generator[ChangeBatch, None, None],
        get_identity: Callable[[], DatabaseIdentity | None],
    ) -> None:
        self._batches = batches
        self._get_identity = get_identity
        self._pieces: list[Piece] = []
        self._changes = self._size_bytes = 0
        self._arrived = Event()
        self._is_complete = Event()
        self._has_room = Event()
        self._has_room.set()
        self._error: Exception | None = None
        self._has_ended = False
        self._greenlet: gevent.Greenlet[..., None] = gevent.spawn(self._read)

    def wait_until_full(self, seconds: float) -> None:
        """Wait until a page is full or the feed has ended, for at most `seconds`."""
        self._is_complete.wait(seconds)

    def take(self, seconds: float) -> Sequence[Piece] | None:
        """Take the batches that have arrived, in order.

        Args:
            seconds: how long to wait for the first batch.

        Returns:
            The batches, empty if none came; None at the end of the feed.

        Raises:
            PillowError: the error that ended the feed. The batches before it were taken first.
        """
        if not self._pieces and not self._has_ended:
            self._arrived.clear()
            self._arrived.wait(seconds)
        if self._pieces:
            taken, self._pieces = self._pieces, []
            self._changes = self._size_bytes = 0
            if not self._has_ended:
                self._is_complete.clear()
            self._has_room.set()
            return taken
        if self._error is not None:
            raise self._error
        return None if self._has_ended else ()

    def close(self) -> None:
        """Stop reading."""
        self._greenlet.kill()

    def _read(self) -> None:
        try:
            with closing(self._batches):
                for batch in self._batches:
                    self._has_room.wait()
                    self._add(batch)
        except Exception as error:  # noqa: BLE001 - raised by `take`
            self._error = error
        finally:
            self._has_ended = True
            self._is_complete.set()
            self._arrived.set()

    def _add(self, batch: ChangeBatch) -> None:
        self._pieces.append(Piece(batch, self._get_identity()))
        self._changes += len(batch.changes)
        self._size_bytes += batch.size_bytes
        if self._changes >= PAGE_CHANGES or self._size_bytes >= PAGE_BYTES:
            self._has_room.clear()
            self._is_complete.set()
        self._arrived.set()
