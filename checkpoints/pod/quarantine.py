"""A damaged store is set aside as it is, and one with every whole line of it takes its place.

So a file that cannot be read stops whoever needs it and nobody else. What was set aside stands beside
the store (`checkpoints.damaged-1` beside `checkpoints`), until an operator needs it no more and removes
it; as long as it stands, what is missing in the store may have been in it.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from checkpoints.files.directory import Directory
from checkpoints.pod.codec import Key
from checkpoints.pod.maintenance import repair
from checkpoints.pod.segments import Finding, scan


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A store that was set aside.

    Attributes:
        path: where it is now.
        findings: what is wrong with it.
        keys: what could be read, and so is not lost.
    """

    path: Path
    findings: tuple[Finding, ...]
    keys: frozenset[Key]

    def __str__(self) -> str:
        """Where it is, and what is wrong with it."""
        return f"{self.path}: {'; '.join(map(str, self.findings))}"


def set_aside(path: Path) -> Damaged:
    """Sets a damaged store aside; a store with all its whole lines takes its place.

    A crash on the way costs nothing: see `finish`.

    Returns:
        What was set aside.

    Raises:
        StoreLocked: another process has it.
        NewerFormat: a newer pillowd wrote it; nothing was changed.
        OSError: the file system refuses, as it does for a mount point; nothing was changed.
    """
    directory = Directory(path)
    try:
        directory.lock()
        whole, aside = _whole(path), _free(path)
        shutil.rmtree(whole, ignore_errors=True)  # of a crash, and perhaps half
        repair(path, whole)
        os.rename(path, aside)
        os.rename(whole, path)
        _sync(path.parent)
    finally:
        directory.close()
    return _look(aside)


def finish(path: Path) -> None:
    """Takes the last step of `set_aside`, where a crash came right before it."""
    if not path.exists() and _whole(path).exists():
        os.rename(_whole(path), path)
        _sync(path.parent)


def damaged(path: Path) -> list[Damaged]:
    """What was set aside of the store at that path, and not removed since."""
    name = re.compile(rf"{re.escape(path.name)}\.damaged-\d+")
    return [_look(found) for found in sorted(path.parent.iterdir()) if name.fullmatch(found.name)]


def _look(path: Path) -> Damaged:
    directory = Directory(path)
    try:
        found = scan(directory, file_size=1, gzipped=False)
    finally:
        directory.close()
    keys = frozenset(key for segment in found.layout.segments for key in segment)
    return Damaged(path=path, findings=tuple(found.harm), keys=keys)


def _whole(path: Path) -> Path:
    return path.with_name(f"{path.name}.whole")


def _free(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def _sync(path: Path) -> None:
    directory = Directory(path)
    try:
        directory.sync()
    finally:
        directory.close()
