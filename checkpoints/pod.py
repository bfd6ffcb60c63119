"""POD: a dictionary that is on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Self

from checkpoints.directory import Directory
from checkpoints.errors import StoreWriteError
from checkpoints.offhub import off_hub


class POD(MutableMapping[Any, Any]):
    """A persistent, ordered dictionary."""

    def __init__(self, path: str | Path, *, sync_at: int | None = 100) -> None:
        self._directory = Directory.create(Path(path))
        self._directory.lock()
        self._guard = threading.RLock()
        self._sync_at = sync_at
        self._writes = 0
        self._entries: dict[Any, Any] = {}
        if "0.json" in self._directory.names():
            for line in self._directory.read("0.json").decode().splitlines():
                key, value = line.split("\t", 1)
                self._entries[json.loads(key.replace("\\\\", "\\"))] = json.loads(value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, key: Any) -> Any:
        return self._entries[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._entries[key] = json.loads(json.dumps(value, allow_nan=False))
        self._wrote()

    def __delitem__(self, key: Any) -> None:
        del self._entries[key]
        self._wrote()

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def sync(self) -> None:
        """Everything is on disk when this returns.

        Raises:
            StoreWriteError: the disk refused.
        """
        with self._guard:
            lines = [
                json.dumps(key).replace("\\", "\\\\") + "\t" + json.dumps(value) + "\n"
                for key, value in self._entries.items()
            ]
            try:
                off_hub(self._directory.replace, "0.json", "".join(lines).encode())
                off_hub(self._directory.sync)
            except OSError as error:
                raise StoreWriteError(f"cannot write {self._directory.path}: {error}") from error
            self._writes = 0

    def close(self) -> None:
        """Syncs, and lets the directory go."""
        self.sync()
        self._directory.close()

    def _wrote(self) -> None:
        self._writes += 1
        if self._sync_at is not None and self._writes >= self._sync_at:
            self.sync()
