"""The last position with every earlier change acknowledged.

Changes arrive in ranges, each ending where the feed gave a position. A range counts its changes
down as they are acknowledged, in whatever order; the watermark passes it when it and every earlier
one are at zero. So a late acknowledgement holds back everything behind it, and nothing before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from checkpoints import Seq
from pillows.models import ChangeBatch


class PendingRange:
    """Changes up to one position of the feed.

    Attributes:
        arrived_at: monotonic seconds when they arrived.
        waiting: how many acknowledgements are missing: one a change, and one where there is none,
            since a position without changes is acknowledged in its turn too.
        changes: how many there were.
        seq: the position behind them; None where the feed gave none.
        caught_up: the feed had nothing more behind them when it was read.
        pending: how many changes the server said are behind them; None where it did not.
        purge_seq: how far the source was purged, where these are the documents that were.
    """

    __slots__ = ("arrived_at", "caught_up", "changes", "pending", "purge_seq", "seq", "waiting")

    def __init__(self, batch: ChangeBatch, arrived_at: float = 0.0) -> None:
        self.arrived_at = arrived_at
        self.changes = len(batch.changes)
        self.waiting = max(1, self.changes)
        self.seq = batch.seq
        self.caught_up = batch.caught_up
        self.pending = batch.pending
        self.purge_seq = batch.purge_seq


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkMove:
    """How far the watermark moved.

    Attributes:
        seq: the newest position that is safe to save; None if no passed range had one.
        changes: how many changes were passed.
        caught_up: whether a passed range was at the head of the feed.
        pending: the newest word of the server on what is behind; None if there was none.
        purge_seq: how far the source was purged, where a passed range held what was purged; else None.
        arrived_at: monotonic seconds when the oldest passed changes arrived; None if none were passed.
    """

    seq: Seq | None = None
    changes: int = 0
    caught_up: bool = False
    pending: int | None = None
    purge_seq: str | None = None
    arrived_at: float | None = field(default=None, compare=False)


class Watermark:
    """Follows the ranges of one tail.

    Attributes:
        changes: number of changes that it has not passed yet.
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
