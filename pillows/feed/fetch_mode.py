"""Whether documents come faster with the feed or with requests of their own: found out by trying. Pure.

No rule knows it. CouchDB 3.5 with two cores gave 9.8-12.2 thousand documents a second through
`_bulk_get` and 7-8 thousand with `include_docs`; a server of one thread does twice as many with
`include_docs`; and a filter of ours that wants one document in ten changes it again.
"""

from __future__ import annotations

from enum import StrEnum

#: A lap is over after so many rows, or so long: what is on its way at its ends must weigh little, and
#: a thousand large documents say as much as ten thousand small ones.
LAP_ROWS = 10_000
LAP_SECONDS = 2.0

#: The better way is kept for so many laps before the other is tried again, then for twice as many.
FIRST_STRETCH_LAPS = 8
LONGEST_STRETCH_LAPS = 128

#: Another way must be so much faster: two laps of one way differ by less.
CLEARLY = 1.2

#: A way that so often in a row did not get through a lap is left for the other: a proxy may cut long
#: responses, or refuse a POST.
MOST_FAILURES = 3


class FetchMode(StrEnum):
    """How documents are read while far behind."""

    BULK_GET = "bulk_get"
    INCLUDE_DOCS = "include_docs"

    @property
    def other(self) -> FetchMode:
        """Not this one."""
        return FetchMode.INCLUDE_DOCS if self is FetchMode.BULK_GET else FetchMode.BULK_GET


class FetchModeTuner:
    """Tries both ways for a lap each, goes on with the faster one, and looks again from time to time.

    Attributes:
        way: how to read now.
    """

    def __init__(self) -> None:
        self.way = FetchMode.BULK_GET
        self._kept = FetchMode.BULK_GET
        self._rates: dict[FetchMode, float] = {}
        self._rows = 0
        self._began_at = 0.0
        self._laps = 0
        self._stretch_laps = FIRST_STRETCH_LAPS
        self._failures = 0

    def begin(self, at: float) -> None:
        """A lap begins; what was counted of one that did not end is forgotten.

        Args:
            at: monotonic seconds.
        """
        self._rows = 0
        self._began_at = at

    def counts(self, rows: int, at: float) -> bool:
        """Counts rows that were asked for; tells whether the lap is over once they have all come.

        Args:
            rows: how many.
            at: monotonic seconds.
        """
        self._rows += rows
        return self._rows >= LAP_ROWS or at - self._began_at >= LAP_SECONDS

    def end(self, at: float) -> None:
        """All of a lap has come: chooses the way of the next, which begins.

        Args:
            at: monotonic seconds.
        """
        self._rates[self.way] = self._rows / max(at - self._began_at, 1e-6)
        self._failures = 0
        self.begin(at)
        if self.way is not self._kept:
            self._compare()
        elif self._kept.other not in self._rates or self._laps >= self._stretch_laps:
            self.way = self._kept.other
        else:
            self._laps += 1

    def fail(self) -> None:
        """A lap failed: a trial is given up, and so is a way that fails again and again."""
        self._failures += 1
        if self.way is not self._kept:
            self._rates[self.way] = 0.0
            self._compare()
        elif self._failures >= MOST_FAILURES:
            self._kept = self.way = self._kept.other
            self._failures = 0

    def _compare(self) -> None:
        """The other way had its lap."""
        better = self._rates[self.way] > CLEARLY * self._rates[self._kept]
        self._stretch_laps = min(2 * self._stretch_laps, LONGEST_STRETCH_LAPS)
        if better:
            self._kept, self._stretch_laps = self.way, FIRST_STRETCH_LAPS
        self.way, self._laps = self._kept, 0
