"""The manifest of a tail's files: the checkpoint, and the acknowledged length of each file.

One small JSON file, which is replaced as a whole. That acknowledges a batch in all files at once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import Checkpoint, TailKey
from checkpoints.files.directory import replace_file, sync_directory
from pillows.errors import FatalError, RetryableError, StateLostError

FORMAT = 1


class FileState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The acknowledged part of one output's file.

    Attributes:
        segment: the number of the current segment, from 1.
        length_bytes: acknowledged bytes in it.
    """

    segment: int = 1
    length_bytes: int = 0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file; it begins with the number of its format.

    Attributes:
        format: `FORMAT`.
        pillow, source: whose files these are.
        epoch: the greatest epoch that was acquired.
        checkpoint: the tail's checkpoint; None before the first.
        files: file name -> acknowledged length.
    """

    format: int
    pillow: str
    source: str
    epoch: int
    checkpoint: dict[str, Any] | None
    files: dict[str, FileState]

    @classmethod
    def new(cls, key: TailKey) -> Manifest:
        """Return a tail's manifest before anything was written."""
        return cls(format=FORMAT, pillow=key.pillow, source=key.source, epoch=0, checkpoint=None, files={})

    @property
    def position(self) -> Checkpoint | None:
        """The checkpoint as a value."""
        return None if self.checkpoint is None else Checkpoint.from_json(self.checkpoint)

    def advance(self, checkpoint: Checkpoint | None, files: Mapping[str, FileState]) -> Manifest:
        """Return the manifest with these files' acknowledged lengths, and the checkpoint if one is given.

        A file that is no longer an output stays in the manifest: if it becomes one again, its lines must not
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
        path: its path; the lock is beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None
        self._manifest: Manifest | None = None
        self._in_doubt = False

    def open(self) -> Manifest | None:
        """Take the lock and return the manifest; None if there is none.

        Raises:
            RetryableError: another process has these files open.
            StateLostError: it cannot be read.
            FatalError: a newer pillowd wrote it.
            OSError: the write failed.
        """
        self.close()
        self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise RetryableError(f"Another process writes the files of {self._path}.") from error
        self._manifest = self._read()
        # Files are cut as it says, so an older one must not come back after a power loss.
        sync_directory(self._path.parent)
        self._in_doubt = False
        return self._manifest

    def settle(self) -> None:
        """Write the earlier manifest again if a failed `save` may have replaced it.

        The file system may have refused only after the rename. Until that is settled, files must not be
        cut below the lengths in the new manifest: a crash would leave them too short.

        Raises:
            OSError: the write failed.
        """
        if self._in_doubt and self._manifest is not None:
            self.save(self._manifest)

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest durably.

        Raises:
            OSError: the write failed; the file holds the old or the new one, see `settle`.
        """
        self._in_doubt = True
        replace_file(self._path, msgspec.json.encode(manifest), mode=0o666)
        self._manifest, self._in_doubt = manifest, False

    def close(self) -> None:
        """Release the lock."""
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
                remedy="restore a good copy, or remove it and its files and `pillowd checkpoint reset KEY`",
            ) from error
        return manifest
