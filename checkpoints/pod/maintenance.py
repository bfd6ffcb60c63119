"""`store check` and `store repair`: what is wrong with a store's files, and a copy of what is whole.

The original is never touched; both work beside a daemon that has the store open.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from checkpoints.errors import IntegrityError, NewerFormat, StoreError
from checkpoints.files.directory import Directory
from checkpoints.pod.commit import Plan
from checkpoints.pod.metadata import META, Meta
from checkpoints.pod.segment_map import Layout
from checkpoints.pod.segments import Finding, Scan, is_store, scan_beside_a_writer

_FILE_SIZE = 1000  # where neither `.meta` nor the files say


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair did.

    Attributes:
        kept: how many entries the copy has.
        findings: what was wrong with the original.
    """

    kept: int
    findings: list[Finding]


def check(path: str | Path) -> list[Finding]:
    """What is wrong with a store, by file and line; nothing if it is whole.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no directory.
        StoreError: there is nothing of a store in it.
        OSError: a file cannot be read.
    """
    return _scan(path).findings


def repair(path: str | Path, into: str | Path) -> Repair:
    """Copies every line that is whole into a new store.

    What a store's `.meta` kept beside (a tracker's `max_tries`) is kept if that file can be read.

    Args:
        path: the broken store; it stays as it is.
        into: a directory that is empty or not there yet.

    Raises:
        FileExistsError: something is in `into`.
        NewerFormat: a newer pillowd has written it, and may mean something else by its lines.
        StoreError: there is nothing of a store.
        OSError: a file cannot be read, or the copy not be written.
    """
    _refuse_newer(path)
    loaded = _scan(path)
    target = Path(into).expanduser()
    if target.exists() and os.listdir(target):
        raise FileExistsError(f"{target} is not empty: a repair writes a new store")
    directory = Directory.create(target)
    try:
        _copy(loaded, path).carry_out(directory)
    finally:
        directory.close()
    return Repair(kept=len(loaded.layout), findings=loaded.findings)


def _scan(path: str | Path) -> Scan:
    directory = Directory(Path(path).expanduser())
    try:
        if not is_store(directory):
            raise StoreError(
                f"{path} is no store: it has neither a {META} nor a segment such as 0.json. "
                "Name the store's own directory, as `checkpoints` in a state directory"
            )
        return scan_beside_a_writer(directory, file_size=_FILE_SIZE, gzipped=False)
    finally:
        directory.close()


def _copy(loaded: Scan, path: str | Path) -> Plan:
    layout = Layout(loaded.layout.file_size)
    for segment in loaded.layout.segments:
        for key, line in segment.items():
            layout.put(key, line)
    segments = {number: list(segment.values()) for number, segment in enumerate(layout.segments)}
    counts = [len(lines) for lines in segments.values()]
    meta = Meta(
        kind=loaded.meta.kind if loaded.meta else _kind(path),
        file_size=layout.file_size,
        gzipped=loaded.gzipped,
        counts=tuple(counts),
        settings=loaded.meta.settings if loaded.meta else {},
    )
    return Plan(gzipped=loaded.gzipped, segments=segments, after=meta.encode(), counts=counts)


def _refuse_newer(path: str | Path) -> None:
    with suppress(FileNotFoundError):
        try:
            Meta.decode((Path(path).expanduser() / META).read_bytes())
        except NewerFormat:
            raise
        except IntegrityError:
            return  # it is one of the findings


def _kind(path: str | Path) -> str:
    """What kind a store is whose `.meta` is missing or cannot be read, as far as its words tell."""
    try:
        text = (Path(path).expanduser() / META).read_text(errors="replace")
    except FileNotFoundError:
        return "pod"
    return next((kind for kind in ("tracker", "checkpoints") if f'"{kind}"' in text), "pod")
