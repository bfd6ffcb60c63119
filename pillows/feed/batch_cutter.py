"""Cut the rows of a response into batches, right after a row with a position. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from checkpoints import Seq
from pillows.feed.requests import INTERVAL
from pillows.models import Change, ChangeBatch

#: A batch of this size is complete, even with fewer than `INTERVAL` rows.
BATCH_BYTES = 2**20


class BatchCutter:
    """Collects changes and cuts batches right after a row with a position.

    Args:
        skip_design: leave design documents out.
        is_page: the response is a page, so that more changes follow those of a batch.

    Attributes:
        rows: all rows that were added.
        read_bytes: their size.
    """

    __slots__ = (
        "_changes",
        "_is_page",
        "_size_bytes",
        "_skip_design",
        "_whole",
        "_whole_bytes",
        "_whole_seq",
        "read_bytes",
        "rows",
    )

    def __init__(self, *, skip_design: bool, is_page: bool = False) -> None:
        self.rows = 0
        self.read_bytes = 0
        self._is_page = is_page
        self._skip_design = skip_design
        self._changes: list[Change] = []
        self._size_bytes = 0
        self._whole = 0  # changes up to the last position
        self._whole_bytes = 0
        self._whole_seq: Seq | None = None

    def add(self, change: Change, size_bytes: int) -> ChangeBatch | None:
        """Add a row; return a batch when one is full."""
        self.rows += 1
        self.read_bytes += size_bytes
        if change.id and not (self._skip_design and change.id.startswith("_design/")):
            self._changes.append(change)
        self._size_bytes += size_bytes
        if change.seq is None:
            return self._cut_without_position() if self._size_bytes >= BATCH_BYTES else None
        self._whole, self._whole_bytes = len(self._changes), self._size_bytes
        self._whole_seq = change.seq
        return self.cut() if self._whole >= INTERVAL or self._whole_bytes >= BATCH_BYTES else None

    def cut(self) -> ChangeBatch | None:
        """Return the rows up to the last one with a position; None if there is no such row."""
        if self._whole_seq is None:
            return None
        batch = ChangeBatch(
            changes=self._changes[: self._whole],
            seq=self._whole_seq,
            size_bytes=self._whole_bytes,
            more_follow=self._is_page,
        )
        self._changes = self._changes[self._whole :]
        self._size_bytes -= self._whole_bytes
        self._whole_seq = None
        return batch

    def end(
        self, seq: Seq, *, caught_up: bool, pending: int | None, asked_at: float | None = None
    ) -> ChangeBatch:
        """Return the last rows of a response that was read to its end.

        Args:
            seq: the position after them.
            caught_up: as in `ChangeBatch`.
            pending: as in `ChangeBatch`.
            asked_at: as in `ChangeBatch`.
        """
        changes, self._changes = self._changes, []
        return ChangeBatch(
            changes=changes,
            seq=seq,
            size_bytes=self._size_bytes,
            caught_up=caught_up,
            pending=pending,
            asked_at=asked_at,
            more_follow=self._is_page and not caught_up,
        )

    def _cut_without_position(self) -> ChangeBatch:
        """Return rows without a position, because they have become too large to wait for one."""
        batch = ChangeBatch(
            changes=self._changes, seq=None, size_bytes=self._size_bytes, more_follow=self._is_page
        )
        self._changes, self._size_bytes, self._whole_seq = [], 0, None
        return batch


def coalesce(batches: Sequence[ChangeBatch]) -> list[ChangeBatch]:
    """Return the same changes in fewer batches: a burst at the head arrives in many small ones.

    A batch gets only a few more than `INTERVAL` changes, since everything between two positions is read again
    after a crash. A batch at the head is not merged with later ones: that would hide that the head was
    reached, and with steady writes a first pass would never end.
    """
    coalesced: list[ChangeBatch] = []
    group: list[ChangeBatch] = []
    for batch in batches:
        group.append(batch)
        if batch.caught_up or sum(len(each.changes) for each in group) >= INTERVAL:
            coalesced.append(merge_batches(group))
            group = []
    return [*coalesced, merge_batches(group)] if group else coalesced


def merge_batches(batches: Sequence[ChangeBatch]) -> ChangeBatch:
    """Return consecutive batches as one."""
    if len(batches) == 1:
        return batches[0]
    last = batches[-1]
    return ChangeBatch(
        changes=[change for batch in batches for change in batch.changes],
        seq=last.seq,
        size_bytes=sum(batch.size_bytes for batch in batches),
        caught_up=last.caught_up,
        pending=last.pending,
        asked_at=last.asked_at,
        purge_seq=next((batch.purge_seq for batch in reversed(batches) if batch.purge_seq), None),
        recreated=any(batch.recreated for batch in batches if batch.purge_seq),
        purges_missed=sum(batch.purges_missed for batch in batches),
    )
