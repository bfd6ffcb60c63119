"""The last comparison of each tail, in a small file that outlives the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import TailKey
from daemon.state_file import StateFile, read_state_file

#: The file's format; a file with a greater number was written by a newer pillowd.
FORMAT = 1


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of the targets of a tail with their source.

    Attributes:
        at: wall-clock seconds of its end.
        differences: transport -> kind (`missing`, `stale`, `extra`) -> number of documents, after a repair
            if there was one; empty if it could not be completed.
        repaired: documents that were different before the repair.
        reason: why it could not be completed; empty if it was.
    """

    at: float
    differences: Mapping[str, Mapping[str, int]] = {}
    repaired: int = 0
    reason: str = ""

    @property
    def total(self) -> int:
        """The number of all differences."""
        return sum(count for kinds in self.differences.values() for count in kinds.values())


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    found: dict[str, Any] = msgspec.to_builtins(comparison)
    return found


class _File(msgspec.Struct, frozen=True):
    format: int
    comparisons: dict[str, Comparison]


class Comparisons:
    """The last comparison of each tail, written durably with every change.

    Args:
        path: the file; its folder must exist, the file need not.

    Raises:
        IntegrityError: the file is damaged, or a newer pillowd wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path)
        self._last = _read(path)

    def get(self, key: TailKey) -> Comparison | None:
        """Return the last comparison of a tail; None before the first."""
        return self._last.get(str(key))

    def put(self, key: TailKey, comparison: Comparison) -> None:
        """Keep the last comparison of a tail, durably.

        Raises:
            OSError: it cannot be written; then it is kept for the life of this process.
        """
        self._last = self._last | {str(key): comparison}
        with self._file:
            self._file.write(_File(FORMAT, self._last))


def _read(path: Path) -> dict[str, Comparison]:
    try:
        found = read_state_file(
            path,
            _File,
            format=FORMAT,
            what="a list of comparisons",
            remedy="delete it; they are made again",
        )
    except FileNotFoundError:
        return {}
    return found.comparisons
