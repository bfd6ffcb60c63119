"""Cut a feed's batches into chunks, one for a worker at a time. Pure.

A chunk ends at the end of a batch, so that its end has a position if the batch has one.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pillows.models import Change
from pillows.progress.watermark import PendingRange

#: Most changes and bytes of a chunk: enough that messages are cheap, and few enough that little is read again
#: after a crash and takes memory. A single batch of the feed may have more.
MAX_CHANGES = 300
MAX_BYTES = 5 * 2**20
#: Target time of a worker for a chunk. The end of a load and the replacement of a dead worker have to wait
#: for the longest chunk, and chunks are written in order.
CHUNK_SECONDS = 0.1
#: Changes of a chunk as long as their duration is unknown.
FIRST_CHANGES = 100


class Chunk(Struct, frozen=True, kw_only=True):
    """Consecutive changes.

    Attributes:
        changes: in feed order.
        ranges: the pending range of each change; then the pending ranges without changes.
        size_bytes: of the changes, approximately.
    """

    changes: Sequence[Change]
    ranges: Sequence[PendingRange]
    size_bytes: int


class ChunkCutter:
    """Collects batches until a chunk is full.

    Args:
        max_changes: most changes of a chunk, unless a single batch has more. A chunk has fewer if workers
            would need longer than `CHUNK_SECONDS` for it.
        max_bytes: most bytes of a chunk, unless a single batch has more.
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
        """Add a batch; return the chunks that became full: none, one or two.

        Args:
            changes: the changes of the batch; may be empty.
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
        """Return the collected changes as a chunk; None if there are none."""
        return self._cut() if self._ranges else None

    def _cut(self) -> Chunk:
        chunk = Chunk(changes=self._changes, ranges=self._ranges, size_bytes=self._size_bytes)
        self._changes, self._ranges, self._size_bytes = [], [], 0
        return chunk
