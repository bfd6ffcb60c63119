"""`store check` and `store repair`: list the faults in a store's files, and copy every intact entry.

The original is never touched; both work while a daemon has the store open.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from checkpoints.errors import IntegrityError, NewerFormat, StoreError
from checkpoints.files.directory import Directory
from checkpoints.finding import Finding
from checkpoints.journal.files import is_journal, read_journal, write_journal
from checkpoints.journal.records import JournalScan
from checkpoints.pod.commit import Commit
from checkpoints.pod.metadata import META, StoreMetadata
from checkpoints.pod.segment_map import SegmentMap
from checkpoints.pod.segments import StoreScan, is_store, scan_beside_a_writer

_FILE_SIZE = 1000  # where neither `.meta` nor the files say


class Repair(Struct, frozen=True, kw_only=True):
    """The result of a repair.

    Attributes:
        kept: how many entries the copy has.
        findings: the faults of the original.
    """

    kept: int
    findings: list[Finding]


def check(path: str | Path) -> list[Finding]:
    """List the faults of a store by file and line; empty if it is intact.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such directory.
        StoreError: the directory holds no store.
        OSError: a file cannot be read.
    """
    return _scan(Path(path).expanduser()).findings


def repair(path: str | Path, into: str | Path) -> Repair:
    """Copy every intact entry into a new store.

    The settings in a store's `.meta` (a tracker's `max_tries`) are kept if that file can be read.

    Args:
        path: the broken store; it stays as it is.
        into: a directory that is empty or not there yet.

    Raises:
        FileExistsError: `into` is not empty.
        NewerFormat: a newer pillowd wrote it; its lines may have another meaning.
        StoreError: the directory holds no store.
        OSError: a file cannot be read, or the copy cannot be written.
    """
    path, target = Path(path).expanduser(), Path(into).expanduser()
    _refuse_newer(path)
    scan = _scan(path)
    if target.exists() and os.listdir(target):
        raise FileExistsError(f"{target} is not empty: a repair writes a new store")
    with Directory.create(target) as directory:
        if isinstance(scan, JournalScan):
            write_journal(directory, scan.entries.values())
            return Repair(kept=len(scan.entries), findings=scan.findings)
        _copy(scan, path).execute(directory)
    return Repair(kept=len(scan.segment_map), findings=scan.findings)


def _scan(path: Path) -> StoreScan | JournalScan:
    with Directory(path) as directory:
        if is_journal(directory):
            return read_journal(directory) or JournalScan()
        if is_store(directory):
            return scan_beside_a_writer(directory, file_size=_FILE_SIZE, gzipped=False)
    raise StoreError(
        f"{path} is not a store: it has neither a {META} nor a segment such as 0.json. "
        "Name the store's own directory, as `checkpoints` in a state directory"
    )


def _copy(loaded: StoreScan, path: Path) -> Commit:
    segment_map = SegmentMap(loaded.segment_map.file_size)
    for segment in loaded.segment_map.segments:
        for key, line in segment.items():
            segment_map.put(key, line)
    segments = {number: list(segment.values()) for number, segment in enumerate(segment_map.segments)}
    counts = [len(lines) for lines in segments.values()]
    meta = StoreMetadata(
        kind=loaded.meta.kind if loaded.meta else _guess_kind(path),
        file_size=segment_map.file_size,
        gzipped=loaded.gzipped,
        counts=tuple(counts),
        settings=loaded.meta.settings if loaded.meta else {},
    )
    return Commit(gzipped=loaded.gzipped, segments=segments, after=meta.encode(), counts=counts)


def _refuse_newer(path: Path) -> None:
    with suppress(FileNotFoundError), Directory(path) as directory:
        if is_journal(directory):
            read_journal(directory)
            return
        try:
            StoreMetadata.decode(directory.read(META))
        except NewerFormat:
            raise
        except IntegrityError:
            return  # it is one of the findings


def _guess_kind(path: Path) -> str:
    """Return the probable kind of a store whose `.meta` is missing or damaged."""
    try:
        text = (path / META).read_text(errors="replace")
    except FileNotFoundError:
        return "pod"
    return "tracker" if '"tracker"' in text else "pod"
