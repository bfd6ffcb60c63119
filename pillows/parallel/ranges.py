"""Ranges of keys, and which of them are done, with their values, or have failed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from msgspec import Struct

from checkpoints import Tracker
from pillows.errors import ConfigError


class Range(NamedTuple):
    """The keys from `begin`, up to but not including `end`.

    Attributes:
        number: identifies it.
        begin: the first key; None is before all keys.
        end: the key after the last one; None is after all keys.
    """

    number: int
    begin: Any
    end: Any


class Progress(Struct, frozen=True, kw_only=True):
    """The progress of the work.

    Attributes:
        done, failed, total: numbers of ranges.
        per_second: ranges per second since the ranges were opened.
        seconds_to_go: remaining time; None while it is unknown.
    """

    done: int
    failed: int
    total: int
    per_second: float
    seconds_to_go: float | None

    def __str__(self) -> str:
        """Return it as a line for people."""
        failed = f", {self.failed} failed" if self.failed else ""
        to_go = "" if self.seconds_to_go is None else f", {self.seconds_to_go:.0f} s to go"
        return f"{self.done} of {self.total} ranges done{failed}, {self.per_second:.1f}/s{to_go}"


def cut_ranges(bounds: Iterable[Any]) -> list[Range]:
    """Return the ranges between the given bounds. Every key is in exactly one range.

    Args:
        bounds: different keys in the order of their source. Without bounds there is one range of all keys.
    """
    edges = [None, *bounds, None]
    return [Range(number, *pair) for number, pair in enumerate(pairwise(edges))]


class Ranges:
    """Ranges that are stored in a folder, and survive a crash of the program. A context manager.

    Args:
        path: the folder; it is created if it is missing.

    Raises:
        StoreError: the folder cannot be used, or another program has it open.
    """

    def __init__(self, path: str | Path) -> None:
        self._tracker = Tracker(path, sync_at=1)
        self._opened_at = time.monotonic()
        self._finished = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write everything, and close the folder."""
        self._tracker.close()

    def __len__(self) -> int:
        """Return the number of ranges; 0 until they are planned."""
        first = next(iter(self._tracker.values()), None)
        # A crash may have left an incomplete plan, of which no range was begun.
        return 0 if first is None or first["of"] != len(self._tracker) else len(self._tracker)

    def plan(self, bounds: Iterable[Any]) -> None:
        """Cut the key space at these bounds. If it was cut before, do not even read them.

        Args:
            bounds: as in `cut_ranges`; their types must be those of JSON.
        """
        if len(self):
            return
        ranges = cut_ranges(bounds)
        self._tracker.clear()
        self._tracker.update(
            {each.number: {"begin": each.begin, "end": each.end, "of": len(ranges)} for each in ranges}
        )
        self._tracker.sync()

    def unfinished(self) -> Iterator[Range]:
        """Yield the ranges that are neither done nor failed."""
        return (self._get(number) for number in self._tracker.todo_keys())

    def finish(self, done: Range, value: Any) -> None:
        """Note that a range is done, with its value; on disk when this returns.

        Raises:
            TypeError, ValueError: JSON cannot hold the value.
            StoreWriteError: the write failed.
        """
        self._tracker.amend(done.number, {"_done": True, "value": value})
        self._finished += 1

    def fail(self, failed: Range, reason: str) -> None:
        """Note that a range has failed; `unfinished` leaves it out until `retry`."""
        self._tracker.amend(failed.number, {"_aborted": True, "error": reason})

    def retry(self, number: int) -> None:
        """Mark a failed or finished range as unfinished.

        Raises:
            ConfigError: there is no such range.
        """
        if number not in self._tracker:
            raise ConfigError(f"There is no range {number}.", remedy=f"give one from 0 to {len(self) - 1}")
        self._tracker.amend(number, {"_done": False, "_aborted": False})

    def failed(self) -> Iterator[tuple[Range, str]]:
        """Yield the ranges that have failed, with the reasons."""
        return ((self._get(number), entry["error"]) for number, entry in self._tracker.aborted_items())

    def results(self) -> Iterator[tuple[Range, Any]]:
        """Yield the ranges that are done, with their values."""
        return (
            (self._get(number), entry["value"]) for number, entry in self._tracker.items() if entry["_done"]
        )

    @property
    def progress(self) -> Progress:
        """The progress of the work."""
        done, failed, total = self._tracker.num_done(), self._tracker.num_aborted(), len(self)
        per_second = self._finished / max(time.monotonic() - self._opened_at, 1e-9)
        left = total - done - failed
        return Progress(
            done=done,
            failed=failed,
            total=total,
            per_second=per_second,
            seconds_to_go=left / per_second if per_second else None,
        )

    def _get(self, number: Any) -> Range:
        entry = self._tracker[number]
        return Range(number, entry["begin"], entry["end"])
