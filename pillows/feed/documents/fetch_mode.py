"""Measure whether documents arrive faster with the feed or by separate requests. Pure.

No rule predicts it. CouchDB 3.5 with two cores gave 32 thousand documents per second with `include_docs` and
21 thousand through `_bulk_get`, for 56 and 99 microseconds of its CPU each; another server gave 7-8 and 10-12
thousand; and a filter in pillowd that keeps one document in ten changes it again. So the feed brings the
documents along until a short trial has shown that requests for them are faster.
"""

from __future__ import annotations

from enum import StrEnum

#: A lap ends after this many rows or seconds: long enough that responses in flight at its ends hardly matter.
#: The limit in seconds ends laps of large documents, which need fewer rows for a reliable rate.
LAP_ROWS = 10_000
LAP_SECONDS = 2.0

#: A trial is shorter: this fraction of the pending changes, so that the slower mode costs very little. If few
#: changes are pending, there is no trial.
TRIAL_SHARE = 100
MIN_TRIAL_ROWS = 1_000

#: Laps before the first trial: the first one warms up.
LAPS_BEFORE_TRIAL = 2

#: Laps for which the better mode is kept before the other is tried again; then twice as many, up to the last.
FIRST_STRETCH_LAPS = 16
LONGEST_STRETCH_LAPS = 128

#: How much faster the other mode must be: two laps of one mode differ by less.
MIN_SPEEDUP = 1.2

#: Share of a lap that the target may hold it up. A lap that waits for longer says nothing about its mode.
MAX_HELD_UP_SHARE = 0.1

#: Failed laps in a row after which a mode is given up: a proxy may cut long responses, or refuse a POST.
MAX_FAILURES = 3


class FetchMode(StrEnum):
    """How documents are read while many changes are behind."""

    BULK_GET = "bulk_get"
    INCLUDE_DOCS = "include_docs"

    @property
    def other(self) -> FetchMode:
        """The other mode."""
        return FetchMode.INCLUDE_DOCS if self is FetchMode.BULK_GET else FetchMode.BULK_GET


class FetchModeTuner:
    """Begins with documents in the feed; tries the other mode for a lap now and then, and keeps the faster.

    Attributes:
        mode: how to read now.
    """

    def __init__(self) -> None:
        self.mode = FetchMode.INCLUDE_DOCS
        self._kept = self.mode
        self._kept_rate = 0.0  # rows per second
        self._rows = 0
        self._lap_rows = LAP_ROWS
        self._began_at = 0.0
        self._laps = 0
        self._stretch_laps = LAPS_BEFORE_TRIAL
        self._failures = 0

    @property
    def rows_left(self) -> int:
        """Rows to request until the lap ends."""
        return max(1, self._lap_rows - self._rows)

    def begin(self, at: float) -> None:
        """Begin a lap; forget the rows of one that did not end.

        Args:
            at: monotonic seconds.
        """
        self._rows = 0
        self._began_at = at

    def count(self, rows: int, at: float) -> bool:
        """Count requested rows; return whether the lap ends.

        Args:
            rows: how many.
            at: monotonic seconds.
        """
        self._rows += rows
        return self._rows >= self._lap_rows or at - self._began_at >= LAP_SECONDS

    def changes_mode(self, pending: int) -> bool:
        """Return whether the mode changes when this lap ends, so that all its documents must have arrived.

        Args:
            pending: how many changes are behind.
        """
        is_due = self._laps + 1 >= self._stretch_laps
        return self.mode is not self._kept or (is_due and pending >= TRIAL_SHARE * MIN_TRIAL_ROWS)

    def end(self, at: float, pending: int, *, held_up_seconds: float = 0.0) -> None:
        """End a lap, choose the mode of the next and begin it.

        A lap that the target held up is not compared: a short trial fits into the queues, and looks fast.

        Args:
            at: monotonic seconds.
            pending: how many changes are behind.
            held_up_seconds: how long the target has held it up.
        """
        seconds = max(at - self._began_at, 1e-6)
        rate = self._rows / seconds
        self._failures = 0
        if held_up_seconds > MAX_HELD_UP_SHARE * seconds:
            self.mode, self._lap_rows = self._kept, LAP_ROWS
        elif self.mode is not self._kept:
            self._compare(rate)
        else:
            self._kept_rate = rate
            if self.changes_mode(pending):
                self.mode = self._kept.other
                self._lap_rows = min(LAP_ROWS, pending // TRIAL_SHARE)
            self._laps += 1
        self.begin(at)

    def fail(self) -> None:
        """Give up a trial that failed, or a mode that fails repeatedly."""
        self._failures += 1
        if self.mode is not self._kept:
            self._compare(0.0)
        elif self._failures >= MAX_FAILURES:
            self._kept = self.mode = self._kept.other
            self._failures = 0

    def _compare(self, rate: float) -> None:
        """Keep the faster of the two modes, now that the other one had its trial."""
        self._stretch_laps = max(FIRST_STRETCH_LAPS, min(2 * self._stretch_laps, LONGEST_STRETCH_LAPS))
        if rate > MIN_SPEEDUP * self._kept_rate:
            self._kept, self._kept_rate, self._stretch_laps = self.mode, rate, FIRST_STRETCH_LAPS
        self.mode, self._laps, self._lap_rows = self._kept, 0, LAP_ROWS
