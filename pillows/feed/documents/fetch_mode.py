"""Measure whether documents arrive faster with the feed or by separate requests. Pure.

No rule predicts it: CouchDB 3.5 with two cores gave 9.8-12.2 thousand documents a second through
`_bulk_get` and 7-8 thousand with `include_docs`; a server of one thread does twice as many with
`include_docs`; and a filter in pillowd that keeps one document in ten changes it again.
"""

from __future__ import annotations

from enum import StrEnum

#: A lap ends after this many rows or seconds: long enough that responses in flight at its ends hardly matter.
#: Seconds, too: a thousand large documents tell as much as ten thousand small ones.
LAP_ROWS = 10_000
LAP_SECONDS = 2.0

#: Laps for which the better mode is kept before the other is tried again; then twice as many, up to the last.
FIRST_STRETCH_LAPS = 8
LONGEST_STRETCH_LAPS = 128

#: How much faster the other mode must be: two laps of one mode differ by less.
MIN_SPEEDUP = 1.2

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
    """Tries both modes for a lap each, keeps the faster one, and tries again from time to time.

    Attributes:
        mode: how to read now.
    """

    def __init__(self) -> None:
        self.mode = FetchMode.BULK_GET
        self._kept = FetchMode.BULK_GET
        self._rates: dict[FetchMode, float] = {}
        self._rows = 0
        self._began_at = 0.0
        self._laps = 0
        self._stretch_laps = FIRST_STRETCH_LAPS
        self._failures = 0

    def begin(self, at: float) -> None:
        """Begin a lap; forget the rows of one that did not end.

        Args:
            at: monotonic seconds.
        """
        self._rows = 0
        self._began_at = at

    def count(self, rows: int, at: float) -> bool:
        """Count requested rows; return whether the lap ends once all their documents have arrived.

        Args:
            rows: how many.
            at: monotonic seconds.
        """
        self._rows += rows
        return self._rows >= LAP_ROWS or at - self._began_at >= LAP_SECONDS

    def end(self, at: float) -> None:
        """End a lap, choose the mode of the next and begin it.

        Args:
            at: monotonic seconds.
        """
        self._rates[self.mode] = self._rows / max(at - self._began_at, 1e-6)
        self._failures = 0
        self.begin(at)
        if self.mode is not self._kept:
            self._compare()
        elif self._kept.other not in self._rates or self._laps >= self._stretch_laps:
            self.mode = self._kept.other
        else:
            self._laps += 1

    def fail(self) -> None:
        """Give up a trial that failed, or a mode that fails repeatedly."""
        self._failures += 1
        if self.mode is not self._kept:
            self._rates[self.mode] = 0.0
            self._compare()
        elif self._failures >= MAX_FAILURES:
            self._kept = self.mode = self._kept.other
            self._failures = 0

    def _compare(self) -> None:
        """Keep the faster of the two modes, now that the other one had its lap."""
        better = self._rates[self.mode] > MIN_SPEEDUP * self._rates[self._kept]
        self._stretch_laps = min(2 * self._stretch_laps, LONGEST_STRETCH_LAPS)
        if better:
            self._kept, self._stretch_laps = self.mode, FIRST_STRETCH_LAPS
        self.mode, self._laps = self._kept, 0
