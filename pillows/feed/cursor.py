"""The state of one reading: its position, its database, and where its batches go."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from checkpoints import Seq
from pillows.feed.documents.loader import DocumentLoader
from pillows.feed.identity_check import IdentityCheck
from pillows.models import ChangeBatch


class ReadCursor:
    """One reading: from a position, first page by page, then at the head.

    Args:
        since: the position.
        stop: ends the reading before its next request.
        identity: makes sure that each response comes from the same database.
        loader: adds documents to batches and hands them over.
        put: takes batches that need no documents; may block.

    Attributes:
        following: whether the reading has reached the head.
    """

    __slots__ = ("_put", "following", "identity", "loader", "since", "stop")

    def __init__(
        self,
        since: Seq,
        stop: Event,
        identity: IdentityCheck,
        loader: DocumentLoader,
        put: Callable[[ChangeBatch], None],
    ) -> None:
        self.since = since
        self.stop = stop
        self.identity = identity
        self.loader = loader
        self.following = False
        self._put = put

    def hand_over(self, batch: ChangeBatch | None) -> None:
        """Hand over a batch with its documents and advance to its position; do nothing for None."""
        if batch is None:
            return
        if self.loader.has_nothing_to_do(batch):
            self._put(batch)
        else:
            self.loader.add(batch)
            self.loader.drain()
        if batch.seq is not None:
            self.since = batch.seq
