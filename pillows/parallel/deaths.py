"""What to do with changes whose worker has died. Pure.

A crash is put down to the changes that the worker was working on: after three, they are halved, and a half
that kills a worker is halved at once, down to the one document that does it. A signal from outside (of an
operator, or of the kernel without memory) says nothing about a document, so it never makes a dead letter.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from pillows.parallel.process import Cause

#: Deaths of the same changes until something else is tried.
MAX_DEATHS = 3
#: Signals from outside, in a row, to workers with the same single document.
MAX_KILLED = 10


class Verdict(StrEnum):
    """What to do."""

    AGAIN = "again"  # give the changes to another worker
    HALVE = "halve"  # give it the halves, one after the other
    DEAD_LETTER = "dead-letter"
    STOP = "stop"  # the tail cannot go on


class Deaths:
    """The deaths of workers with the same changes.

    Args:
        halved: whether the changes are half of those that have killed workers.
    """

    def __init__(self, *, halved: bool = False) -> None:
        self._halved = halved
        self._counts = Counter[Cause]()

    def judge(self, cause: Cause, changes: int) -> Verdict:
        """Count a death, and return what to do.

        Args:
            cause: of the death.
            changes: how many changes the worker had.
        """
        self._counts[cause] += 1
        if cause is Cause.KILLED:
            return self._judge_killed(changes)
        if changes > 1:
            # A crash may come from elsewhere. A worker hangs for a minute, so that is not repeated.
            is_sure = self._halved or cause is not Cause.CRASHED
            return Verdict.HALVE if is_sure or self._crashes >= MAX_DEATHS else Verdict.AGAIN
        # A worker that an operator stops (SIGSTOP) hangs, too: that needs more than one.
        is_sure = self._halved and cause is Cause.CRASHED
        return Verdict.DEAD_LETTER if is_sure or self._crashes >= MAX_DEATHS else Verdict.AGAIN

    def _judge_killed(self, changes: int) -> Verdict:
        killed = self._counts[Cause.KILLED]
        if changes > 1:
            return Verdict.AGAIN if killed % MAX_DEATHS else Verdict.HALVE
        return Verdict.STOP if killed >= MAX_KILLED else Verdict.AGAIN

    @property
    def _crashes(self) -> int:
        return sum(count for cause, count in self._counts.items() if cause is not Cause.KILLED)
