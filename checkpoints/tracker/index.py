"""The flags of a tracker's tasks, and counts that always equal a recount."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from checkpoints.errors import StoreError
from checkpoints.pod.codec import Key, value_of
from checkpoints.pod.segment_map import SegmentMap

DEFAULTS: dict[str, Any] = {"_tries": 0, "_done": False, "_aborted": False}

_log = logging.getLogger(__name__)


class TaskFlags(NamedTuple):
    """The flags of a task."""

    done: bool
    tries: int
    aborted: bool


class TaskIndex:
    """The flags and counts of all tasks; the hooks (`EntryHooks`) of a tracker's store.

    Args:
        max_tries: how many times a task is tried; 0: without end; None: the number in the store.

    Attributes:
        flags: by key, in no particular order.
        done, tried, aborted: how many tasks are done, tried, aborted.
    """

    kind = "tracker"

    def __init__(self, max_tries: int | None) -> None:
        self.max_tries = max_tries
        self.flags: dict[Key, TaskFlags] = {}
        self.done = self.tried = self.aborted = 0

    def complete(self, key: Key, value: Any, present: Any) -> Any:
        """Return an entry with all flags; flags that are not given keep their values."""
        if not isinstance(value, dict):
            raise TypeError(f"task {key!r} must be a dict of fields, not {value!r}")
        kept = DEFAULTS if present is None else {name: present[name] for name in DEFAULTS}
        complete = kept | value
        self.check(key, complete)
        return complete

    def check(self, key: Key, value: Any) -> None:
        """Refuse an entry without valid flags."""
        if not isinstance(value, dict) or not value.keys() >= DEFAULTS.keys():
            raise TypeError(f"task {key!r} must have {', '.join(DEFAULTS)}, not be {value!r}")
        tries = value["_tries"]
        if not isinstance(tries, int) or isinstance(tries, bool) or tries < 0:
            raise TypeError(f"_tries of {key!r} must be a number of tries, not {tries!r}")
        for name in ("_done", "_aborted"):
            if not isinstance(value[name], bool):
                raise TypeError(f"{name} of {key!r} must be true or false, not {value[name]!r}")

    def changed(self, key: Key, value: Any) -> None:
        """Count a new or changed entry."""
        self._count(self.flags.get(key), -1)
        self.flags[key] = flags = _flags(value)
        self._count(flags, 1)

    def removed(self, key: Key) -> None:
        """Stop counting an entry."""
        self._count(self.flags.pop(key), -1)

    def read(
        self, kind: str | None, settings: dict[str, Any], segment_map: SegmentMap
    ) -> tuple[int | None, dict[Key, TaskFlags]]:
        """Return the saved `max_tries`, and the flags of all tasks."""
        if kind not in (None, self.kind) and len(segment_map):
            raise StoreError("this is a POD, not a tracker: Tracker.from_pod() makes one of it")
        flags = {}
        for segment in segment_map.segments:
            for key, line in segment.items():
                value = value_of(line)
                try:
                    self.check(key, value)
                except TypeError as error:
                    raise StoreError(
                        f"this is not a tracker: {error}. Tracker.from_pod() makes one"
                    ) from None
                flags[key] = _flags(value)
        return settings.get("max_tries"), flags

    def begin(self, read: tuple[int | None, dict[Key, TaskFlags]]) -> bool:
        """Count all tasks; take `max_tries` from the store unless it was given."""
        saved, self.flags = read
        self.done = sum(flags.done for flags in self.flags.values())
        self.tried = sum(flags.tries > 0 for flags in self.flags.values())
        self.aborted = sum(flags.aborted for flags in self.flags.values())
        return self.set_max_tries((saved or 0) if self.max_tries is None else self.max_tries, saved)

    def settings(self) -> dict[str, Any]:
        """Return the settings to keep in `.meta`."""
        return {"max_tries": self.max_tries}

    def set_max_tries(self, max_tries: int, saved: int | None) -> bool:
        """Set `max_tries`, and log it if the saved number differs. Return whether it must be saved."""
        self.max_tries = max_tries
        if saved is not None and saved != max_tries:
            _log.warning("max_tries is %s from now on; the tracker was made with %s", max_tries, saved)
        return saved != max_tries

    def should_do(self, key: Key, *, allow_aborted: bool) -> bool:
        """Return whether a task should be done.

        Raises:
            KeyError: the task does not exist.
        """
        done, tries, aborted = self.flags[key]
        tries_left = not self.max_tries or self.max_tries < 1 or tries < self.max_tries
        return not done and tries_left and (allow_aborted or not aborted)

    def _count(self, flags: TaskFlags | None, step: int) -> None:
        if flags is not None:
            self.done += step * flags.done
            self.tried += step * (flags.tries > 0)
            self.aborted += step * flags.aborted


def _flags(entry: dict[str, Any]) -> TaskFlags:
    return TaskFlags(entry["_done"], entry["_tries"], entry["_aborted"])
