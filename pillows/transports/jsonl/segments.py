"""A file, or a row of numbered ones, that grows by appending and holds exactly what was acknowledged.

How long a file is as far as acknowledged is remembered elsewhere (the transport's manifest), so that
after a crash, or a write that failed half way, what stands behind that length is cut off.

Without `segment_size` there is one file, `cases.jsonl`. With it the file being written is
`cases.000001.jsonl.part`; when full it is renamed to `cases.000001.jsonl` and never touched again, so
whoever takes finished files away sees whole ones only. Names sort in the order of writing. A segment is
full from the moment that the next one is remembered as the one being written; its renaming follows,
and is made up for after a crash.

Compressed files (`cases.jsonl.gz`) are a gzip member per batch, one behind the other, which is a gzip
file (RFC 1952, 2.2): it can be cut at an acknowledged length like any other.
"""

from __future__ import annotations

import gzip
import os
from contextlib import suppress
from pathlib import Path

from pillows.errors import StateLostError


class SegmentedFile:
    """The file of one output.

    Args:
        path: where it is, without number and `.gz`.
        segment_size: a segment of at least so many bytes is finished; None: one file for ever.
        compressed: write gzip.
        number: of the segment that is being written, from 1.
        length: how much of it was acknowledged, in bytes.

    Attributes:
        number: see above; moves on when a segment is finished.
        length: see above; moves on with `acknowledge`.
    """

    def __init__(
        self,
        path: Path,
        *,
        segment_size: int | None,
        compressed: bool,
        number: int = 1,
        length: int = 0,
    ) -> None:
        self._path = path
        self._segment_size = segment_size
        self._compressed = compressed
        self.number = number
        self.length = length
        self._written = length
        self._fd: int | None = None

    @property
    def finished_path(self) -> Path:
        """The present segment's name once it is finished."""
        return self._finished(self.number)

    def _finished(self, number: int) -> Path:
        middle = f".{number:06}" if self._segment_size else ""
        return self._path.with_name(
            f"{self._path.stem}{middle}{self._path.suffix}{'.gz' if self._compressed else ''}"
        )

    @property
    def written_path(self) -> Path:
        """The name of the file that is being written."""
        return self._unfinished(self.number)

    def _unfinished(self, number: int) -> Path:
        finished = self._finished(number)
        return finished.with_name(finished.name + ".part") if self._segment_size else finished

    def open(self) -> None:
        """Opens the file and cuts off what was never acknowledged.

        Raises:
            StateLostError: what was acknowledged is not there any more.
            OSError: the file system refuses.
        """
        self.close()
        self._rename_full()
        self._fd = os.open(self.written_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        sync_folder(self._path.parent)
        self._cut()

    def append(self, data: bytes) -> None:
        """Writes behind what was acknowledged, durably; nothing is acknowledged by it.

        Raises:
            StateLostError: the file was moved, deleted or shortened.
            OSError: the file system refuses.
        """
        if self._fd is None:
            self.open()
        fd = self._checked()
        self._cut()
        data = gzip.compress(data, compresslevel=6) if self._compressed else data
        view = memoryview(data)
        while view:
            view = view[os.pwrite(fd, view, self.length + len(data) - len(view)) :]
        os.fsync(fd)
        self._written = self.length + len(data)

    def discard(self) -> None:
        """Cuts off what was appended and not acknowledged."""
        self._written = self.length
        if self._fd is not None:
            self._cut()

    @property
    def written(self) -> tuple[int, int]:
        """Number and length that are durable, and that `acknowledge` makes the acknowledged ones."""
        full = self._segment_size is not None and self._written >= self._segment_size
        return (self.number + 1, 0) if full else (self.number, self._written)

    def acknowledge(self) -> None:
        """What was appended counts from now on, and has been remembered so; a full segment is finished."""
        number, self.length = self.written
        if number == self.number:
            return
        self.close()
        self.number, self._written = number, 0
        with suppress(OSError):  # what counts, counts: `open` does it again before the next write, and tells
            self._rename_full()

    def close(self) -> None:
        """Closes the file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _rename_full(self) -> None:
        full = self.number - 1
        if full and self._unfinished(full).exists():
            os.rename(self._unfinished(full), self._finished(full))
            sync_folder(self._path.parent)

    def _checked(self) -> int:
        assert self._fd is not None  # noqa: S101  # `append` has opened it
        ours = os.fstat(self._fd)
        with suppress(FileNotFoundError):
            named = os.stat(self.written_path)
            if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino):
                return self._fd
        self._lost("was moved, deleted or replaced")
        return self._fd

    def _cut(self) -> None:
        assert self._fd is not None  # noqa: S101  # called with an open file
        size = os.fstat(self._fd).st_size
        if size < self.length:
            self._lost(f"holds {size} bytes where {self.length} were acknowledged")
        if size > self.length:
            os.ftruncate(self._fd, self.length)

    def _lost(self, what: str) -> None:
        raise StateLostError(
            f"{self.written_path} {what}.",
            remedy="put it back, or remove the transport's manifest beside it and run"
            " `pillowd checkpoint reset` to write everything again",
        )


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: without it a rename can be lost on power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
