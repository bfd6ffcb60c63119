"""A database on disk: a file of records that is appended to, and read when the server starts.

A record is written before its request is answered, so a killed server has all that it confirmed. Nothing is
synced: the machine itself does not die in a test.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LENGTH = struct.Struct(">I")


class Journal:
    """The file of one database.

    Args:
        path: where it is; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._waiting: list[bytes] = []
        self._file = path.open("ab", buffering=0) if path else None

    def add(self, *record: Any) -> None:
        """Add a record, which the next `flush` writes."""
        if self._file is not None:
            data = marshal.dumps(record)
            self._waiting += (LENGTH.pack(len(data)), data)

    def flush(self) -> None:
        """Write the records that were added."""
        if self._file is not None and self._waiting:
            self._file.write(b"".join(self._waiting))
        self._waiting.clear()

    def rewrite(self, records: Iterable[tuple[Any, ...]]) -> None:
        """Replace all records."""
        if self._path is None or self._file is None:
            return
        self._file.close()
        fresh = self._path.with_suffix(".compact")
        with fresh.open("wb") as file:
            for record in records:
                data = marshal.dumps(record)
                file.write(LENGTH.pack(len(data)) + data)
        fresh.replace(self._path)
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def delete(self) -> None:
        """Remove the file."""
        self.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def records(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the records of a file; a last one that is cut off is left out."""
    with path.open("rb") as file:
        while len(head := file.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            data = file.read(size)
            if len(data) < size:
                return
            yield marshal.loads(data)
