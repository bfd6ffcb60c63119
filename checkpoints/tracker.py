"""Tracker: a POD of tasks that are done, tried and aborted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.pod import POD


class Tracker(POD):
    """Tasks by key, each with `_done`, `_tries`, `_aborted` and fields of its own."""

    def __init__(self, path: str | Path, max_tries: int = 0, *, sync_at: int | None = 100) -> None:
        super().__init__(path, sync_at=sync_at)
        self.max_tries = max_tries

    def add_if_absent(self, key: Any) -> None:
        """Adds a task that is not there yet."""
        if key not in self:
            self[key] = {"_tries": 0, "_done": False, "_aborted": False}

    def increment_tries(self, key: Any) -> None:
        """One more try."""
        self[key] = self[key] | {"_tries": self[key]["_tries"] + 1}

    def mark_done(self, key: Any) -> None:
        """The task is done."""
        self[key] = self[key] | {"_done": True}

    def abort(self, key: Any) -> None:
        """The task is given up."""
        self[key] = self[key] | {"_aborted": True}

    def todo_keys(self, *, allow_aborted: bool = False) -> Iterator[Any]:
        """The tasks that should be done."""
        for key in self:
            entry = self[key]
            tried = self.max_tries and entry["_tries"] >= self.max_tries
            if not entry["_done"] and not tried and (allow_aborted or not entry["_aborted"]):
                yield key
