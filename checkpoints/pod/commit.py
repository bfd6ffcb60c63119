"""One commit: what is written in which order, so that a crash at any moment leaves a whole store."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

from checkpoints.files.directory import Directory
from checkpoints.pod.metadata import META
from checkpoints.pod.segments import segment_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One commit.

    Attributes:
        gzipped: whether segments are compressed.
        before: `.meta` as it must be before lines are removed.
        segments: the lines of the segments that are written, by number.
        new: from this number on each segment is made durable before the next one is written.
        removals: the numbers of the segments whose files go.
        after: `.meta` as it may be once lines were added.
        counts: by segment, how many lines its file has when it is done.
    """

    gzipped: bool
    before: bytes | None = None
    segments: dict[int, list[bytes]] = field(default_factory=dict)
    new: int = 0
    removals: range = range(0)
    after: bytes | None = None
    counts: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.segments or self.removals or self.before or self.after)

    def carry_out(self, directory: Directory) -> None:
        """Writes it all; everything is on disk when this returns.

        A file that is new is made durable before the next: a crash that kept a later segment and lost
        an earlier one would leave a gap, which cannot be told from a lost file. So is every file where
        keys move up: they must be where they go to before they leave where they were.

        Raises:
            OSError: the disk refused. Any part may have been written; each file is old or new.
        """
        if self.before is not None:
            directory.replace(META, self.before)
            directory.sync()
        replaced = False
        for number, lines in sorted(self.segments.items()):
            directory.replace(segment_name(number, gzipped=self.gzipped), self._content(lines))
            replaced = number < self.new
            if not replaced:
                directory.sync()
        if replaced:
            directory.sync()
        for number in reversed(self.removals):
            directory.remove(segment_name(number, gzipped=self.gzipped))
            directory.sync()
        if self.after is not None:
            directory.replace(META, self.after)
            directory.sync()

    def _content(self, lines: list[bytes]) -> bytes:
        data = b"\n".join([*lines, b""])
        return gzip.compress(data, mtime=0) if self.gzipped else data
