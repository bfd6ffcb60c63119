"""Commits: the order of writes that keeps a store intact if a crash interrupts them.

While a commit runs, and after a failed one, each file may be the old or the new one. `DiskState` holds only
facts that are true for both, and plans the next commit accordingly.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable

from msgspec import Struct, field

from checkpoints.files.directory import Directory
from checkpoints.pod.hooks import EntryHooks
from checkpoints.pod.memtable import DirtySegments
from checkpoints.pod.metadata import META, StoreMetadata, lower_bounds, satisfies
from checkpoints.pod.segments import StoreScan, segment_name


class Commit(Struct, frozen=True, kw_only=True):
    """One commit.

    Attributes:
        gzipped: whether segments are compressed.
        before: the `.meta` to write before lines are removed.
        segments: segment number -> the lines to write.
        first_new: from this number on, each segment is synced before the next one is written.
        removals: the numbers of the segments whose files are removed.
        after: the `.meta` to write once lines were added.
        counts: by segment, how many lines its file has after the commit.
    """

    gzipped: bool
    before: bytes | None = None
    segments: dict[int, list[bytes]] = field(default_factory=dict)
    first_new: int = 0
    removals: range = range(0)
    after: bytes | None = None
    counts: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.segments or self.removals or self.before or self.after)

    def execute(self, directory: Directory) -> None:
        """Write it all; everything is on disk when this returns.

        Each new file is synced before the next is written: if a crash kept a later segment and lost an
        earlier one, the gap would look like a lost file. Files are also synced one by one while keys move
        to earlier segments: a key must be in its new file before it leaves the old one.

        Raises:
            OSError: a write failed. Each file is either the old or the new one.
        """
        if self.before is not None:
            directory.replace(META, self.before)
            directory.sync()
        self._write_segments(directory)
        for number in reversed(self.removals):
            directory.remove(segment_name(number, gzipped=self.gzipped))
            directory.sync()
        if self.after is not None:
            directory.replace(META, self.after)
            directory.sync()

    def _write_segments(self, directory: Directory) -> None:
        unsynced = False
        for number, lines in sorted(self.segments.items()):
            directory.replace(segment_name(number, gzipped=self.gzipped), self._content(lines))
            unsynced = number < self.first_new
            if not unsynced:
                directory.sync()
        if unsynced:
            directory.sync()

    def _content(self, lines: list[bytes]) -> bytes:
        data = b"\n".join([*lines, b""])
        return gzip.compress(data, mtime=0) if self.gzipped else data


class DiskState:
    """The facts about a store's files that are certain.

    Attributes:
        gzipped: whether segments are compressed.
        bounds: for each segment that certainly has a file, the least number of its lines.
    """

    def __init__(self, scan: StoreScan, hooks: EntryHooks | None) -> None:
        self.gzipped = scan.gzipped
        self.bounds = list(scan.counts)
        self._most_files = len(scan.counts)
        self._meta = scan.meta
        self._file_size = scan.segment_map.file_size
        self._hooks = hooks
        self._rewrite_meta = False

    def rewrite_metadata(self) -> None:
        """Write `.meta` at the next commit: the hooks' settings have changed."""
        self._meta = None
        self._rewrite_meta = True

    def plan(self, dirty: DirtySegments) -> Commit:
        """Return the commit that writes these segments."""
        counts = self._counts_after(dirty)
        removals = range(len(counts), self._most_files) if len(counts) == dirty.length else range(0)
        before, after = None, None
        if dirty.segments or removals or self._rewrite_meta:
            before, after = self._plan_metadata(counts)
        return Commit(
            gzipped=self.gzipped,
            before=before,
            segments=dirty.segments,
            first_new=0 if dirty.moved else len(self.bounds),
            removals=removals,
            after=after,
            counts=counts,
        )

    def commit_succeeded(self, commit: Commit) -> None:
        """Note that every file of a commit is the new one."""
        self.bounds = list(commit.counts)
        self._most_files = max(len(commit.counts), self._most_files - len(commit.removals))
        if commit.segments or commit.removals or self._rewrite_meta:
            self._meta, self._rewrite_meta = self._describe(commit.counts), False

    def commit_failed(self, commit: Commit) -> None:
        """Note that each file of a commit may be the old or the new one."""
        self._most_files = max(self._most_files, len(commit.counts))
        self.bounds = list(lower_bounds(self.bounds, commit.counts))
        self._meta = None

    def _counts_after(self, dirty: DirtySegments) -> list[int]:
        length = max(min(len(self.bounds), dirty.length), max(dirty.segments, default=-1) + 1)
        counts = (self.bounds + [0] * length)[:length]
        for number, lines in dirty.segments.items():
            counts[number] = len(lines)
        return counts

    def _plan_metadata(self, counts: list[int]) -> tuple[bytes | None, bytes | None]:
        """Return the `.meta` to write before a commit, and the one to write after it; None: unchanged."""
        if self._meta is not None and list(self._meta.counts) == counts:
            return None, None
        sure, before = lower_bounds(self.bounds, counts), None
        if self._meta is None or not satisfies(self._meta.counts, sure):
            before = self._describe(sure).encode()
        complete = before is not None and list(sure) == counts
        return before, None if complete else self._describe(counts).encode()

    def _describe(self, counts: Iterable[int]) -> StoreMetadata:
        return StoreMetadata(
            kind=self._hooks.kind if self._hooks else "pod",
            file_size=self._file_size,
            gzipped=self.gzipped,
            counts=tuple(counts),
            settings=self._hooks.settings() if self._hooks else {},
        )
