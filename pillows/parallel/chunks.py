"""Cut a feed's batches into chunks, each the work of one worker at a time. Pure.

A chunk ends where a batch of the feed ends, so at a position wherever the feed gave one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pillows.models import Change
from pillows.progress.watermark import PendingRange

#: Changes and bytes of a chunk: large enough that a message costs little, small enough that few are read
#: again after a crash. A single batch of the feed may have more.
MAX_CHANGES = 1000
MAX_BYTES = 5 * 2**20
#: A worker should need no longer for a chunk. Workers that end a load, or take over from one that has died,
#: wait for the longest chunk, and all chunks behind one wait to be written.
CHUNK_SECONDS = 0.1
#: Changes of a chunk before it is known how long they take.
FIRST_CHANGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive changes.

    Attributes:
        changes: in feed order.
        ranges: for each change the pending range that waits for it; then those without changes.
        size_bytes: of the changes, approximately.
    """

    changes: Sequence[Change]
    ranges: Sequence[PendingRange]
    size_bytes: int


class ChunkCutter:
    """Collects batches until a chunk is full.

    Args:
        max_changes: changes in a chunk, unless a single batch has more. While workers need longer for so many
            than `CHUNK_SECONDS`, it has fewer.
        max_bytes: their bytes, likewise.
    """

    def __init__(self, *, max_changes: int = MAX_CHANGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_changes = max_changes
        self._max_bytes = max_bytes
        self._fitting = min(FIRST_CHANGES, max_changes)
        self._change_seconds: float | None = None
        self._changes: list[Change] = []
        self._ranges: list[PendingRange] = []
        self._size_bytes = 0

    def add(self, changes: Sequence[Change], pending_range: PendingRange) -> list[Chunk]:
        """Add a batch; return the chunks that are full: none, one, or two.

        Args:
            changes: the batch's; may be none.
            pending_range: the range of these changes.
        """
        size_bytes = sum(len(each.id) + (len(each.raw) if each.raw is not None else 0) for each in changes)
        full = []
        if self._changes and (
            len(self._changes) + len(changes) > self._fitting
            or self._size_bytes + size_bytes > self._max_bytes
        ):
            full.append(self._cut())
        self._changes += changes
        self._ranges += [pending_range] * max(1, len(changes))
        self._size_bytes += size_bytes
        if len(self._changes) >= self._fitting or self._size_bytes >= self._max_bytes or not changes:
            full.append(self._cut())
        return full

    def note(self, changes: int, seconds: float) -> None:
        """Note how long a worker took for some changes."""
        former, found = self._change_seconds, seconds / changes
        self._change_seconds = found if former is None else (former + found) / 2
        fitting = self._max_changes
        if self._change_seconds * fitting > CHUNK_SECONDS:
            fitting = max(1, int(CHUNK_SECONDS / self._change_seconds))
        self._fitting = fitting

    def cut(self) -> Chunk | None:
        """Return what was collected; None if there is nothing."""
        return self._cut() if self._ranges else None

    def _cut(self) -> Chunk:
        chunk = Chunk(changes=self._changes, ranges=self._ranges, size_bytes=self._size_bytes)
        self._changes, self._ranges, self._size_bytes = [], [], 0
        return chunk
