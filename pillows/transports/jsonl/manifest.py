"""What a file transport remembers of a tail: its checkpoint, and how far each file is acknowledged.

One small JSON file, replaced as a whole (write, fsync, rename, fsync of the folder): its replacement
is the moment when a batch counts, in all of its files at once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import Checkpoint, TailKey
from pillows.errors import FatalError, RetryableError, StateLostError
from pillows.transports.jsonl.segments import sync_folder

FORMAT = 1


class FileState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one output's file is acknowledged.

    Attributes:
        segment: the number of the segment that is being written, from 1.
        length_bytes: how much of it was acknowledged.
    """

    segment: int = 1
    length_bytes: int = 0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file; it begins with its format's number.

    Attributes:
        format: the number of this format.
        pillow, source: whose files these are.
        epoch: the greatest epoch that was claimed.
        checkpoint: the tail's checkpoint; None before the first.
        files: file name -> how far it is acknowledged.
    """

    format: int
    pillow: str
    source: str
    epoch: int
    checkpoint: dict[str, Any] | None
    files: dict[str, FileState]

    @classmethod
    def new(cls, key: TailKey) -> Manifest:
        """A tail's manifest before anything was written."""
        return cls(format=FORMAT, pillow=key.pillow, source=key.source, epoch=0, checkpoint=None, files={})

    @property
    def position(self) -> Checkpoint | None:
        """The checkpoint as a value."""
        return None if self.checkpoint is None else Checkpoint.from_json(self.checkpoint)

    def moved(self, checkpoint: Checkpoint | None, files: Mapping[str, FileState]) -> Manifest:
        """The manifest with these files' acknowledged lengths, and that checkpoint if one is given.

        A file that is not an output any more stays known: should it be one again, nothing of it may
        be cut off.
        """
        files = self.files | dict(files)
        if checkpoint is None:
            return msgspec.structs.replace(self, files=files)
        epoch = max(self.epoch, checkpoint.epoch)
        return msgspec.structs.replace(self, files=files, epoch=epoch, checkpoint=checkpoint.to_json())


class ManifestFile:
    """The manifest on disk, locked against other processes while open.

    Args:
        path: where it is; the lock is beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None
        self._counts: Manifest | None = None
        self._in_doubt = False

    def open(self) -> Manifest | None:
        """Takes the lock and reads; None where there is no manifest.

        Raises:
            RetryableError: another process has these files open.
            StateLostError: it cannot be read.
            FatalError: a newer pillowd wrote it.
            OSError: the file system refuses.
        """
        self.close()
        self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise RetryableError(f"Another process writes the files of {self._path}.") from error
        self._counts = self._read()
        sync_folder(self._path.parent)  # on its word files are cut: it must not go back after that
        self._in_doubt = False
        return self._counts

    def take_back(self) -> None:
        """Makes the manifest of before count again if it is not known which does after a failed `save`.

        The file system may have refused only once the new one was in place. Files must not be cut
        below what that says: a crash right then would leave too little of them.

        Raises:
            OSError: the file system refuses.
        """
        if self._in_doubt and self._counts is not None:
            self.save(self._counts)

    def save(self, manifest: Manifest) -> None:
        """Replaces the manifest durably.

        Raises:
            OSError: the file system refuses; the old one or this one is there, see `take_back`.
        """
        self._in_doubt = True
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(manifest))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self._path)
        sync_folder(self._path.parent)
        self._counts, self._in_doubt = manifest, False

    def close(self) -> None:
        """Gives the lock back."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _read(self) -> Manifest | None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            format = msgspec.json.decode(content)["format"]
            if format != FORMAT:
                raise FatalError(
                    f"{self._path} has format {format}; this pillowd knows {FORMAT}.",
                    remedy="run the pillowd that wrote it, or a newer one",
                )
            manifest = msgspec.json.decode(content, type=Manifest)
            _ = manifest.position
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise StateLostError(
                f"{self._path} cannot be read: {error!r}.",
                remedy="put back a good copy, or remove it with its files and run `pillowd checkpoint reset`",
            ) from error
        return manifest
