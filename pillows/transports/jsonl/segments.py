"""A file, or a series of numbered ones, that grows by appending and holds only acknowledged bytes.

The acknowledged length is kept elsewhere (in the transport's manifest); after a crash, or a write that
failed half way, everything beyond that length is cut off.

Without `segment_size` there is one file, `cases.jsonl`. With it the file being written is
`cases.000001.jsonl.part`; when it is full it is renamed to `cases.000001.jsonl` and never changed
again, so a reader of finished files sees whole ones only. Names sort in the order of writing. A segment
is full as soon as the manifest names the next one; the rename follows, after a crash at the next start.

Compressed files (`cases.jsonl.gz`) hold one gzip member per batch, which together are a gzip file
(RFC 1952, 2.2): it can be cut at an acknowledged length like any other.
"""

from __future__ import annotations

import gzip
import os
from contextlib import suppress
from pathlib import Path

from checkpoints.files.directory import sync_directory
from pillows.errors import StateLostError


class SegmentedFile:
    """The file of one output.

    Args:
        path: its path, without number and `.gz`.
        segment_size: bytes from which on a segment is full; None: one file.
        compressed: whether to write gzip.
        number: of the segment that is being written, from 1.
        length: how much of it is acknowledged, in bytes.

    Attributes:
        number, length: as above; changed by `acknowledge`.
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
        """The current segment's path once it is finished."""
        return self._get_finished(self.number)

    def _get_finished(self, number: int) -> Path:
        middle = f".{number:06}" if self._segment_size else ""
        return self._path.with_name(
            f"{self._path.stem}{middle}{self._path.suffix}{'.gz' if self._compressed else ''}"
        )

    @property
    def written_path(self) -> Path:
        """The path of the file that is being written."""
        return self._get_unfinished(self.number)

    def _get_unfinished(self, number: int) -> Path:
        finished = self._get_finished(number)
        return finished.with_name(finished.name + ".part") if self._segment_size else finished

    def open(self) -> None:
        """Open the file and cut off bytes that were never acknowledged.

        Raises:
            StateLostError: acknowledged bytes are missing.
            OSError: the write failed.
        """
        self.close()
        self._rename_full()
        self._fd = os.open(self.written_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        sync_directory(self._path.parent)
        self._cut()

    def append(self, data: bytes) -> None:
        """Write behind the acknowledged bytes, durably, without acknowledging anything.

        Raises:
            StateLostError: the file was moved, deleted or shortened.
            OSError: the write failed.
        """
        if self._fd is None:
            self.open()
        fd = self._check_same_file()
        self._cut()
        data = gzip.compress(data, compresslevel=6) if self._compressed else data
        view = memoryview(data)
        while view:
            view = view[os.pwrite(fd, view, self.length + len(data) - len(view)) :]
        os.fsync(fd)
        self._written = self.length + len(data)

    def discard(self) -> None:
        """Cut off bytes that were appended and not acknowledged."""
        self._written = self.length
        if self._fd is not None:
            self._cut()

    @property
    def written(self) -> tuple[int, int]:
        """The durable number and length, which `acknowledge` takes over."""
        full = self._segment_size is not None and self._written >= self._segment_size
        return (self.number + 1, 0) if full else (self.number, self._written)

    def acknowledge(self) -> None:
        """Count the appended bytes as acknowledged, after the manifest was saved; finish a full segment."""
        number, self.length = self.written
        if number == self.number:
            return
        self.close()
        self.number, self._written = number, 0
        with suppress(OSError):  # the manifest counts: `open` tries again before the next write, and raises
            self._rename_full()

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _rename_full(self) -> None:
        full = self.number - 1
        if full and self._get_unfinished(full).exists():
            os.rename(self._get_unfinished(full), self._get_finished(full))
            sync_directory(self._path.parent)

    def _check_same_file(self) -> int:
        assert self._fd is not None  # noqa: S101  # `append` has opened it
        ours = os.fstat(self._fd)
        with suppress(FileNotFoundError):
            named = os.stat(self.written_path)
            if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino):
                return self._fd
        self._raise_lost("was moved, deleted or replaced")
        return self._fd

    def _cut(self) -> None:
        assert self._fd is not None  # noqa: S101  # called with an open file
        size = os.fstat(self._fd).st_size
        if size < self.length:
            self._raise_lost(f"holds {size} bytes, but {self.length} were acknowledged")
        if size > self.length:
            os.ftruncate(self._fd, self.length)

    def _raise_lost(self, what: str) -> None:
        raise StateLostError(
            f"{self.written_path} {what}.",
            remedy="restore it, or remove the transport's manifest beside it and run"
            " `pillowd checkpoint reset KEY` to write everything again",
        )
