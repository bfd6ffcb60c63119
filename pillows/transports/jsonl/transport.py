"""Appends JSON lines to files: one line per row, and one for each document without rows.

The lines are described in `common.json_lines`. The files hold exactly the acknowledged lines: a
manifest beside them holds their lengths and the checkpoint, which move atomically, so a crash neither
loses nor repeats a line. A change that the feed delivers twice is written twice: this is an append-only
target, and `_version` tells which line counts.

All file work runs in a thread, fsync included: it waits for the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, ClassVar, ParamSpec, TypeVar

from checkpoints import Checkpoint, TailKey
from pillows.errors import AccessError, ConfigError, RetryableError
from pillows.models import Batch, WriteResult
from pillows.options import Options, OutputOptions
from pillows.serial_worker import SerialWorker
from pillows.transports.base import AppendOnlyTransport, Part, TargetState
from pillows.transports.common.addresses import check_folder
from pillows.transports.common.json_lines import encode_batch, preview_batch
from pillows.transports.common.mirroring import MirrorSupport
from pillows.transports.jsonl.manifest import FileState, Manifest, ManifestFile
from pillows.transports.jsonl.mirror import JsonlMirror
from pillows.transports.jsonl.options import JsonlConnection, JsonlOutput
from pillows.transports.jsonl.segments import SegmentedFile

#: Longest name of a manifest without its suffix: Linux allows 255 bytes, and database names have up to 238.
MAX_NAME_CHARACTERS = 220
DIGEST_CHARACTERS = 32

P = ParamSpec("P")
T = TypeVar("T")


class JsonlTransport(AppendOnlyTransport):
    """Appends to files; see the module."""

    TYPE: ClassVar[str] = "jsonl"
    Connection: ClassVar[type[Options]] = JsonlConnection
    Output: ClassVar[type[OutputOptions]] = JsonlOutput
    takes_json: ClassVar[bool] = True
    mirror: ClassVar[MirrorSupport | None] = JsonlMirror()
    remembers: ClassVar[bool] = True
    transactional: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: JsonlConnection,
        outputs: Mapping[str, JsonlOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        names = [options.file for options in outputs.values()]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two outputs of {name} name the same file.")
        self._folder = connection.folder
        self._file = ManifestFile(self._folder / f"{_file_name(key)}.manifest")
        self._manifest: Manifest | None = None
        self._segments: dict[str, SegmentedFile] = {}
        self._outputs = outputs  # with the names of their files
        self._worker = SerialWorker()

    def take_part(self, part: Part) -> None:
        """Write files of this owner of the part alone; see `Transport.take_part`.

        The next owner may be on another machine, so the checkpoint is not kept with them: after a crash the
        last lines come again, in the next owner's files.
        """
        self.transactional = self.remembers = False  # type: ignore[misc]  # of this instance
        infix = f"{part.number}-{part.term}"
        self._file = ManifestFile(self._folder / f"{_file_name(self.key)}.{infix}.manifest")
        self._outputs = {
            output: options.model_copy(update={"file": _add_infix(options.file, infix)})
            for output, options in self.outputs.items()
        }

    def check(self) -> str:
        """Check the folder; see `Transport.check`."""
        check_folder(self._folder)
        return f"{self._folder} can be written to"

    def open(self) -> TargetState:
        """Lock and read the manifest, and cut off lines that were never acknowledged."""
        return self._run(self._open)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store the checkpoint; the lock keeps other writers out."""
        self._run(self._save, checkpoint)

    def preview(self, batch: Batch) -> str:
        """Return the lines; see `Transport.preview`."""
        return preview_batch(batch, self.outputs)

    def write(self, batch: Batch) -> WriteResult:
        """Append the batch's lines and save the checkpoint with them."""
        return self._run(self._write, batch)

    def close(self) -> None:
        """Close the files once a call that is still running has ended."""
        self._run(self._close)

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the files' names and kinds."""
        return (
            (output, options.file, options.gzip, options.segment_size is not None)
            for output, options in self.outputs.items()
        )

    def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._worker.run(work, *args, **kwargs)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise AccessError(
                f"The files of {self.name} cannot be written: {error}.",
                remedy="create the folder, and let the daemon's user write to it",
            ) from error
        except OSError as error:  # no space, quota, I/O error
            raise RetryableError(f"The files of {self.name} cannot be written now: {error}.") from error

    # -- called in the worker's thread

    def _open(self) -> TargetState:
        self._close()
        manifest = self._manifest = self._file.open()
        if manifest and (manifest.pillow, manifest.source) != (self.key.pillow, self.key.source):
            raise ConfigError(
                f"The files of {self.name} were written by {manifest.pillow}@{manifest.source}.",
                remedy="choose another folder",
            )
        for output, options in self._outputs.items():
            known = manifest.files.get(options.file, FileState()) if manifest else FileState()
            segments = self._segments[output] = SegmentedFile(
                self._folder / options.file,
                segment_size=options.segment_size,
                compressed=options.gzip,
                number=known.segment,
                length=known.length_bytes,
            )
            self._check_not_foreign(options.file, segments)
            segments.open()
        return TargetState(
            epoch=manifest.epoch if manifest else None,
            empty=all(s.number == 1 and not s.length for s in self._segments.values()),
            checkpoint=manifest.position if manifest else None,
        )

    def _check_not_foreign(self, file: str, segments: SegmentedFile) -> None:
        """Refuse a file that pillowd did not write: without an acknowledged length it would be cut."""
        if self._manifest is not None and file in self._manifest.files:
            return
        for path in (segments.written_path, segments.finished_path):
            if path.exists() and path.stat().st_size:
                raise ConfigError(
                    f"{path} exists, and was not written by {self.key}.",
                    remedy="choose another file, or move it away",
                )

    def _write(self, batch: Batch) -> WriteResult:
        encoded, dead = encode_batch(batch, self.outputs)
        appended = self._append(
            {output: b"".join(lines[output] for lines in encoded) for output in self.outputs}
            if encoded
            else {}
        )
        checkpoint = None if dead else batch.checkpoint
        if appended or checkpoint:
            self._save(checkpoint)
        return WriteResult(dead=dead)

    def _append(self, texts: Mapping[str, bytes]) -> bool:
        self._file.settle()
        for segments in self._segments.values():
            segments.discard()  # appended by a write that failed half way
        for output, text in texts.items():
            self._segments[output].append(text)
        return bool(texts)

    def _save(self, checkpoint: Checkpoint | None) -> None:
        """Acknowledge the appended lines, together with the checkpoint if one is given."""
        known = self._manifest or Manifest.new(self.key)
        files = {self._outputs[o].file: FileState(*s.written) for o, s in self._segments.items()}
        manifest = known.advance(checkpoint, files)
        self._file.save(manifest)
        self._manifest = manifest
        for segments in self._segments.values():
            segments.acknowledge()

    def _close(self) -> None:
        for segments in self._segments.values():
            segments.close()
        self._segments = {}
        self._manifest = None
        self._file.close()


def _add_infix(file: str, infix: str) -> str:
    """Return the name of an output's file with something before its suffix."""
    stem, dot, suffix = file.rpartition(".")
    return f"{stem}.{infix}.{suffix}" if dot else f"{file}.{infix}"


def _file_name(key: TailKey) -> str:
    """Return the name of a tail's manifest without its suffix. A long name is cut, and ends with a digest."""
    name = re.sub(r"[^A-Za-z0-9_.@-]", "_", str(key))
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = sha256(str(key).encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{name[: MAX_NAME_CHARACTERS - DIGEST_CHARACTERS - 1]}-{digest}"
