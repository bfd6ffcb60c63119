"""SharedTracker: a Tracker that one process owns and any number of processes use (see `SharedPOD`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from checkpoints.pod.codec import Key, check_key, encode_value
from checkpoints.shared.pod import SharedPOD
from checkpoints.tracker.api import Fields, TrackerAPI
from checkpoints.tracker.tracker import Tracker


class SharedTracker(SharedPOD, TrackerAPI):
    """A Tracker that any number of processes use; each try of a task is given to one of them only."""

    _kind = Tracker

    @property
    def max_tries(self) -> int:
        """Return how many times a task is tried; 0 without end."""
        return self._numbers()[3]

    def num_done(self) -> int:
        """Return how many tasks are done."""
        return self._numbers()[0]

    def num_tried(self) -> int:
        """Return how many tasks were tried at least once."""
        return self._numbers()[1]

    def num_aborted(self) -> int:
        """Return how many tasks are given up."""
        return self._numbers()[2]

    def add(self, key: Key, fields: Fields | None = None) -> None:
        """Add a task."""
        check_key(key)
        self._call("add", key, encode_value(key, dict(fields or {})))

    def add_many(self, keys: Iterable[Key]) -> None:
        """Add tasks, all or none."""
        self._call("add_many", _checked(keys))

    def add_many_if_absent(self, keys: Iterable[Key]) -> None:
        """Add the tasks that do not exist."""
        self._call("add_many_if_absent", _checked(keys))

    def amend(self, key: Key, fields: Fields) -> None:
        """Set fields of a task."""
        self._missing(key, "amend", key, encode_value(key, dict(fields)))

    def add_tries(self, key: Key, count: int) -> None:
        """Add to the tries of a task, or subtract; never below 0."""
        self._missing(key, "add_tries", key, count)

    def should_do(self, key: Key, allow_aborted: bool = False, *, due: float | None = None) -> bool:
        """Return whether a task should be done."""
        return bool(self._missing(key, "should_do", key, allow_aborted, due))

    def should_try(
        self, key: Key, allow_aborted: bool = False, *, due: float | None = None, durable: bool = True
    ) -> bool:
        """Return whether a task should be done; if so, count a try."""
        return bool(self._missing(key, "should_try", key, allow_aborted, due, durable))

    def todo_keys(self, allow_aborted: bool = False, *, due: float | None = None) -> Iterator[Key]:
        """Walk the tasks that should be done, in order, as `iterkeys` does."""
        walk = self._walk("todo", allow_aborted, due)
        return (key for key, should in walk if should)

    def aborted_keys(self) -> Iterator[Key]:
        """Walk the tasks that are given up, in order."""
        return (key for key, aborted in self._walk("aborted") if aborted)

    def _numbers(self) -> tuple[int, int, int, int]:
        done, tried, aborted, max_tries = self._call("numbers")
        return done, tried, aborted, max_tries


def _checked(keys: Iterable[Key]) -> list[Key]:
    keys = list(keys)
    for key in keys:
        check_key(key)
    return keys
