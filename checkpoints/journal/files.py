"""The files of a journal's directory: reading, checking, and keeping damaged ones.

journal                 the entries (`checkpoints.journal.records`)
journal.damaged-1       a damaged journal, as it was found; an operator removes it
.meta                   format and kind; if it exists without a journal, the journal was lost
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from itertools import count

from checkpoints.errors import IntegrityError, NewerFormat, StoreError
from checkpoints.files.directory import Directory
from checkpoints.finding import Finding
from checkpoints.journal.records import JOURNAL, JournalScan, format_snapshot, scan_journal

META = ".meta"
KIND = "checkpoints"
FORMAT = 2  # 1 was a POD with a file for each checkpoint

_DAMAGED = f"{JOURNAL}.damaged-"


def is_journal(directory: Directory) -> bool:
    """Return whether a directory holds a journal, or held one."""
    if JOURNAL in directory.names():
        return True
    try:
        return _read_kind(directory)[0] == KIND
    except (FileNotFoundError, IntegrityError):
        return False


def read_journal(directory: Directory) -> JournalScan | None:
    """Read the journal of a directory. Return None if there never was one.

    Raises:
        NewerFormat: a newer pillowd wrote it.
        StoreError: the directory holds a store of another kind.
        OSError: a file cannot be read.
    """
    kept, problem = True, None
    try:
        _check_kind(directory)
    except FileNotFoundError:
        kept = False
    except NewerFormat:
        raise
    except IntegrityError as error:
        problem = str(error)
    try:
        scan = scan_journal(directory.read(JOURNAL))
    except FileNotFoundError:
        if not kept:
            return None
        scan = JournalScan()
        scan.add_finding("the file is missing")
    if problem is not None:
        scan.findings.append(Finding(file=META, problem=problem))
    return scan


def write_journal(directory: Directory, entries: Collection[bytes]) -> int:
    """Replace the journal with a snapshot; durable on return. Return its size in bytes.

    Raises:
        OSError: the write failed; the old or the new journal is there.
    """
    size_bytes = directory.replace(JOURNAL, format_snapshot(entries))
    directory.sync()
    if not _is_described(directory):  # last: until then a missing journal means that nothing was stored
        directory.replace(META, json.dumps({"format": FORMAT, "kind": KIND}).encode() + b"\n")
        directory.sync()
    return size_bytes


def keep_damaged(directory: Directory) -> str:
    """Link the damaged journal to a second name, which a replacement does not touch. Return that name.

    Raises:
        OSError: the link failed, for example because the file system has no hard links.
    """
    kept = list_damaged(directory)
    missing = JOURNAL not in directory.names()
    data = b"" if missing else directory.read(JOURNAL)
    for name in kept:
        if directory.read(name) == data:  # left by an attempt whose later writes failed
            return name
    name = next(name for name in (f"{_DAMAGED}{number}" for number in count(1)) if name not in kept)
    if missing:
        directory.replace(name, data)
    else:
        directory.link(JOURNAL, name)
    directory.sync()
    return name


def list_damaged(directory: Directory) -> list[str]:
    """List the damaged journals that an operator has not removed yet."""
    return sorted(name for name in directory.names() if name.startswith(_DAMAGED))


def _is_described(directory: Directory) -> bool:
    with suppress(FileNotFoundError, StoreError):
        _check_kind(directory)
        return True
    return False


def _check_kind(directory: Directory) -> None:
    kind, written_format = _read_kind(directory)
    if kind != KIND:
        raise StoreError(f"{directory.path} is a store of the kind {kind!r}, not {KIND!r}")
    if written_format != FORMAT:
        raise NewerFormat(
            f"{directory.path}/{META}: it has format {written_format!r}, this pillowd knows {FORMAT}"
        )


def _read_kind(directory: Directory) -> tuple[str, object]:
    try:
        content = json.loads(directory.read(META))
        return content["kind"], content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{META} does not say what kind of store this is: {error!r}") from error
