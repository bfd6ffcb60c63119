"""What a tracker asks of its entries, and the counts that always equal a recount."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from checkpoints.errors import StoreError
from checkpoints.pod.codec import Key, value_of
from checkpoints.pod.hooks import Rules
from checkpoints.pod.segment_map import Layout

NEW: dict[str, Any] = {"_tries": 0, "_done": False, "_aborted": False}

_log = logging.getLogger(__name__)


class Marks(NamedTuple):
    """How far a task is."""

    done: bool
    tries: int
    aborted: bool


class Tally(Rules):
    """The marks of all tasks, told of every change, however it was made.

    Args:
        max_tries: how often a task is tried, 0 for ever; None: as the store says.

    Attributes:
        marks: by key, in no particular order.
        done, tried, aborted: how many tasks are.
    """

    kind = "tracker"
    checks = True

    def __init__(self, max_tries: int | None) -> None:
        self.max_tries = max_tries
        self.marks: dict[Key, Marks] = {}
        self.done = self.tried = self.aborted = 0

    def complete(self, key: Key, value: Any, present: Any) -> Any:
        """An entry with its marks: those that are not given stay as they are."""
        if not isinstance(value, dict):
            raise TypeError(f"the task {key!r} is a dict of fields, not {value!r}")
        kept = NEW if present is None else {name: present[name] for name in NEW}
        complete = kept | value
        self.check(key, complete)
        return complete

    def check(self, key: Key, value: Any) -> None:
        """Refuses an entry whose marks are none."""
        if not isinstance(value, dict) or not value.keys() >= NEW.keys():
            raise TypeError(f"the task {key!r} has {', '.join(NEW)}, not {value!r}")
        tries = value["_tries"]
        if not isinstance(tries, int) or isinstance(tries, bool) or tries < 0:
            raise TypeError(f"_tries of {key!r} is a number of tries, not {tries!r}")
        for name in ("_done", "_aborted"):
            if not isinstance(value[name], bool):
                raise TypeError(f"{name} of {key!r} is true or false, not {value[name]!r}")

    def changed(self, key: Key, value: Any) -> None:
        """Counts an entry as it is now."""
        self._count(self.marks.get(key), -1)
        self.marks[key] = marks = _marks(value)
        self._count(marks, 1)

    def removed(self, key: Key) -> None:
        """Counts an entry no longer."""
        self._count(self.marks.pop(key), -1)

    def read(self, layout: Layout) -> dict[Key, Marks]:
        """The marks of all tasks."""
        marks = {}
        for segment in layout.segments:
            for key, line in segment.items():
                value = value_of(line)
                try:
                    self.check(key, value)
                except TypeError as error:
                    raise StoreError(f"this is no tracker: {error}. Tracker.from_pod() makes one") from None
                marks[key] = _marks(value)
        return marks

    def begin(self, read: dict[Key, Marks]) -> None:
        """Counts anew."""
        self.marks = read
        self.done = sum(marks.done for marks in read.values())
        self.tried = sum(marks.tries > 0 for marks in read.values())
        self.aborted = sum(marks.aborted for marks in read.values())

    def settings(self) -> dict[str, Any]:
        """What `.meta` keeps beside."""
        return {"max_tries": self.max_tries}

    def opened(self, kind: str | None, settings: dict[str, Any], *, empty: bool) -> bool:
        """Takes max_tries from the store, or gives it a new one."""
        if kind == "pod" and not empty:
            raise StoreError("this is a POD, no tracker: Tracker.from_pod() makes one of it")
        super().opened(kind, settings, empty=empty)
        saved = settings.get("max_tries")
        if self.max_tries is None:
            self.max_tries = saved or 0
        return self.limit(self.max_tries, saved)

    def limit(self, max_tries: int, saved: int | None) -> bool:
        """Sets max_tries; another than the saved one is logged. Returns whether it is another."""
        self.max_tries = max_tries
        if saved is not None and saved != max_tries:
            _log.warning("max_tries is %s from now on; the tracker was made with %s", max_tries, saved)
        return saved != max_tries

    def should_do(self, key: Key, *, allow_aborted: bool) -> bool:
        """Whether a task is to be done.

        Raises:
            KeyError: there is no such task.
        """
        done, tries, aborted = self.marks[key]
        tries_left = not self.max_tries or self.max_tries < 1 or tries < self.max_tries
        return not done and tries_left and (allow_aborted or not aborted)

    def _count(self, marks: Marks | None, step: int) -> None:
        if marks is not None:
            self.done += step * marks.done
            self.tried += step * (marks.tries > 0)
            self.aborted += step * marks.aborted


def _marks(entry: dict[str, Any]) -> Marks:
    return Marks(entry["_done"], entry["_tries"], entry["_aborted"])
