"""When the targets of a tail are to be compared with their source: arithmetic alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from checkpoints import TailKey
from daemon.config.models import VerifyOptions
from daemon.verification.comparisons import Comparison
from pillows.feed.brake import is_within

#: How soon a comparison that could not be completed is made again, at the earliest.
RETRY_SECONDS = 3600.0


def find_due(options: VerifyOptions, last: Comparison | None, now: float) -> float | None:
    """Return since when a comparison is due; None if it is not.

    Args:
        options: the pillow's schedule.
        last: its last comparison.
        now: wall-clock seconds.
    """
    if options.every is None or (options.hours is not None and not is_within(options.hours, now)):
        return None
    if last is None:
        return 0.0
    # A clock that was set back must not put the next one off by more than a period.
    pause_seconds = min(options.every, RETRY_SECONDS) if last.reason else options.every
    due_at = min(last.at, now) + pause_seconds
    return due_at if due_at <= now else None


def choose(tails: Iterable[TailKey], find_due: Callable[[TailKey], float | None]) -> TailKey | None:
    """Return the tail whose comparison has been due for longest; None if none is due."""
    due = [(since, key) for key in tails if (since := find_due(key)) is not None]
    return min(due)[1] if due else None
