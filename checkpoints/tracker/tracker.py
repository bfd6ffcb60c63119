"""Tracker, the progress tracker: a POD of tasks, which survives crashes of the program that works on them.

with Tracker("urls.tracker", max_tries=3) as tracker:
    tracker.add_if_absent("https://example.org")
    for url in tracker.try_keys():  # counted as tried, on disk, before it is given out
        fetch(url)
        tracker.mark_done(url)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, Unpack, cast

from checkpoints.errors import DuplicateKeyError
from checkpoints.pod.codec import Key, check_key, encode_value
from checkpoints.pod.pod import POD, OpenOptions, Pairs, list_pairs
from checkpoints.tracker.api import Fields, TrackerAPI
from checkpoints.tracker.index import DEFAULTS, TaskIndex


class Tracker(POD, TrackerAPI):
    """Tasks by key, on disk.

    Each entry is `{"_tries": 0, "_done": False, "_aborted": False}` and fields of its own. The three flags
    cannot be removed or given another type. They may be changed in any way; the counts are always exact.

    Args:
        path: a directory, created if it is missing.
        max_tries: how many times a task is tried; 0: without end; None: the number in the store.
        init: entries to begin with; existing entries stay as they are, unless `overwrite`.
        gzipped, file_size, sync_at, sync_interval, options: as for POD.

    Raises:
        StoreError: the store is not a tracker (convert it with `from_pod`), or as for POD.
    """

    def __init__(
        self,
        path: str | Path,
        max_tries: int | None = None,
        init: Pairs | None = None,
        gzipped: bool = False,
        file_size: int = 1000,
        sync_at: int | None = 100,
        sync_interval: float | None = 5.0,
        **options: Unpack[OpenOptions],
    ) -> None:
        self._hooks = TaskIndex(max_tries)
        super().__init__(path, init, gzipped, file_size, sync_at, sync_interval, **options)
        if max_tries is not None and self._index.set_max_tries(max_tries, self.max_tries):
            self._engine.rewrite_metadata()

    @classmethod
    def from_pod(cls, source: POD, path: str | Path, **settings: Any) -> Self:
        """Create a tracker from a POD. Dicts become tasks' fields; other values become the field `value`.

        Args:
            source: the POD; it is not changed.
            path: the tracker's directory.
            settings: as for Tracker.
        """
        tracker = cls(path, **settings)
        with tracker._or_given_up():
            tracker._opened.memory.put([(key, _fields(value)) for key, value in source.iteritems()])
            tracker.sync()
        return tracker

    @property
    def max_tries(self) -> int:
        """Return how many times a task is tried; 0 without end."""
        return self._index.max_tries or 0

    def num_done(self) -> int:
        """Return how many tasks are done."""
        return self._index.done

    def num_tried(self) -> int:
        """Return how many tasks were tried at least once."""
        return self._index.tried

    def num_aborted(self) -> int:
        """Return how many tasks are given up."""
        return self._index.aborted

    def update(self, *others: Any, **fields: Any) -> None:
        """Set fields of tasks, and add those that do not exist; all or none, later ones win."""
        merged: dict[Key, dict[str, Any]] = {}
        with self.together():
            for key, value in [*(pair for other in others for pair in list_pairs(other)), *fields.items()]:
                if not isinstance(value, dict):
                    raise TypeError(f"task {key!r} must be a dict of fields, not {value!r}")
                merged[key] = {**(merged.get(key) or self.get(key) or DEFAULTS), **value}
            super().update(merged)

    def add(self, key: Key, fields: Fields | None = None) -> None:
        """Add a task."""
        with self.together():
            if key in self:
                raise DuplicateKeyError(f"{key!r} is there already")
            self[key] = dict(fields or {})

    def add_many(self, keys: Iterable[Key]) -> None:
        """Add tasks, all or none."""
        keys = list(keys)
        with self.together():
            seen: set[Key] = set()
            for key in keys:
                if key in self or key in seen:
                    raise DuplicateKeyError(f"{key!r} is there already")
                seen.add(key)
            self._add(keys)

    def add_many_if_absent(self, keys: Iterable[Key]) -> None:
        """Add the tasks that do not exist."""
        keys = list(dict.fromkeys(keys))
        with self.together():
            self._add([key for key in keys if key not in self])

    def amend(self, key: Key, fields: Fields) -> None:
        """Set fields of a task."""
        with self.together():
            entry = self[key]
            if any(name not in entry or _differ(key, entry[name], value) for name, value in fields.items()):
                entry.update(fields)

    def add_tries(self, key: Key, count: int) -> None:
        """Add to the tries of a task, or subtract; never below 0."""
        with self.together():
            self.amend(key, {"_tries": max(self.tries(key) + count, 0)})

    def should_do(self, key: Key, allow_aborted: bool = False, *, due: float | None = None) -> bool:
        """Return whether a task should be done."""
        check_key(key)
        return self._should_do(self._index, key, allow_aborted=allow_aborted, due=due)

    def should_try(
        self, key: Key, allow_aborted: bool = False, *, due: float | None = None, durable: bool = True
    ) -> bool:
        """Return whether a task should be done; if so, count a try."""
        with self.together():
            should = self.should_do(key, allow_aborted, due=due)
            if should:
                self.increment_tries(key)
        if should and durable:
            self.sync_key(key)
        return should

    def todo_keys(self, allow_aborted: bool = False, *, due: float | None = None) -> Iterator[Key]:
        """Walk the tasks that should be done, in order, including tasks that are added during the walk."""
        index = self._index
        for key in self.iterkeys():
            try:
                should = self._should_do(index, key, allow_aborted=allow_aborted, due=due)
            except KeyError:  # removed by another thread meanwhile
                continue
            if should:
                yield key

    def aborted_keys(self) -> Iterator[Key]:
        """Walk the tasks that are given up, in order."""
        index = self._index
        return (key for key in self.iterkeys() if (flags := index.flags.get(key)) and flags.aborted)

    @property
    def _index(self) -> TaskIndex:
        return cast("TaskIndex", self._opened.hooks)

    def _add(self, keys: list[Key]) -> None:
        self._opened.memory.put([(key, DEFAULTS) for key in keys])

    def _should_do(self, index: TaskIndex, key: Key, *, allow_aborted: bool, due: float | None) -> bool:
        if not index.should_do(key, allow_aborted=allow_aborted):
            return False
        return due is None or (self[key].get("next_retry_at") or 0) <= due


def _fields(value: Any) -> dict[str, Any]:
    """Return the task's entry for a POD's value."""
    return DEFAULTS | (value if isinstance(value, dict) else {"value": value})


def _differ(key: Key, present: Any, value: Any) -> bool:
    """Return whether two values differ on disk; 1 and True do, although they are equal."""
    return encode_value(key, present, stored=True) != encode_value(key, value)
