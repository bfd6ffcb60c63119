"""The last position with every earlier change acknowledged.

Changes arrive in ranges, each ending at a position of the feed. A range counts its missing acknowledgements,
which arrive in any order. The watermark passes a range when that and every earlier range have none missing.
So a late acknowledgement holds back all later ranges, and no earlier one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msgspec import Struct

from checkpoints import Seq
from pillows.models import ChangeBatch


class PendingRange:
    """Changes up to one position of the feed.

    Attributes:
        arrived_at: monotonic seconds when they arrived.
        waiting: how many acknowledgements are missing: one for each change; one for a range without changes,
            since its position is acknowledged in order, too.
        changes: number of changes.
        seq: the position after them; None if the feed gave none.
        caught_up: whether the feed had nothing more when this was read.
        pending: the server's number of changes after them; None if it gave none.
        purge_seq: the source's purge position, if these changes are deletions of purged documents.
        recreated: as `ChangeBatch.recreated`.
        least_epoch: as `ChangeBatch.least_epoch`.
    """

    __slots__ = (
        "arrived_at",
        "caught_up",
        "changes",
        "least_epoch",
        "pending",
        "purge_seq",
        "recreated",
        "seq",
        "waiting",
    )

    def __init__(self, batch: ChangeBatch, arrived_at: float = 0.0) -> None:
        self.arrived_at = arrived_at
        self.changes = len(batch.changes)
        self.waiting = max(1, self.changes)
        self.seq = batch.seq
        self.caught_up = batch.caught_up
        self.pending = batch.pending
        self.purge_seq = batch.purge_seq
        self.recreated = batch.recreated
        self.least_epoch = batch.least_epoch


class WatermarkMove(Struct, frozen=True, kw_only=True):
    """How far the watermark moved.

    Attributes:
        seq: the newest position that is safe to save; None if no passed range had one.
        changes: how many changes were passed.
        caught_up: whether a passed range was at the head of the feed.
        pending: the server's newest number of changes after the passed ranges; None if it gave none.
        purge_seq: the source's purge position, if a passed range held purged documents; else None.
        pass_done: whether the pass is complete with it: no target has anything to remove or publish.
        arrived_at: monotonic seconds when the oldest passed changes arrived; None if none were passed.
    """

    seq: Seq | None = None
    changes: int = 0
    caught_up: bool = False
    pending: int | None = None
    purge_seq: str | None = None
    pass_done: bool = False
    arrived_at: float | None = None


class Watermark:
    """Tracks the ranges of one tail.

    Attributes:
        changes: number of changes that the watermark has not passed yet.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._ranges: deque[PendingRange] = deque()

    def begin(self, batch: ChangeBatch, arrived_at: float = 0.0) -> PendingRange:
        """Add changes that have arrived, in feed order.

        Args:
            batch: the changes.
            arrived_at: monotonic seconds of their arrival.
        """
        segment = PendingRange(batch, arrived_at)
        self._ranges.append(segment)
        self.changes += segment.changes
        return segment

    @property
    def oldest_arrived_at(self) -> float | None:
        """Monotonic seconds when the oldest change that is not passed yet arrived; None if all are."""
        return self._ranges[0].arrived_at if self.changes else None

    def peek(self, acks: Mapping[PendingRange, int]) -> WatermarkMove:
        """Return the move that these acknowledgements would make, without taking them."""
        return self._walk(acks, take=False)

    def ack(self, acks: Mapping[PendingRange, int]) -> WatermarkMove:
        """Take acknowledgements: range -> number of its changes. Return the move."""
        for segment, count in acks.items():
            segment.waiting -= count
        return self._walk({}, take=True)

    def _walk(self, acks: Mapping[PendingRange, int], *, take: bool) -> WatermarkMove:
        seq, changes, caught_up, pending, purge_seq, passed = None, 0, False, None, None, 0
        arrived_at: float | None = None
        for segment in self._ranges:
            if segment.waiting > acks.get(segment, 0):
                break
            passed += 1
            changes += segment.changes
            arrived_at = segment.arrived_at if arrived_at is None else arrived_at
            seq = segment.seq or seq
            caught_up = caught_up or segment.caught_up
            pending = pending if segment.pending is None else segment.pending
            purge_seq = segment.purge_seq or purge_seq
        if take:
            for _ in range(passed):
                self._ranges.popleft()
            self.changes -= changes
        return WatermarkMove(
            seq=seq,
            changes=changes,
            caught_up=caught_up,
            pending=pending,
            purge_seq=purge_seq,
            arrived_at=arrived_at,
        )
