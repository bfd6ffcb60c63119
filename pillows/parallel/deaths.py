"""Decide how to continue with changes whose worker has died. Pure.

A crash is attributed to the changes of the worker. After three crashes they are halved. A half that kills a
worker is halved again at once, until the single document is found. A signal from outside (from an operator,
or from the kernel when memory runs out) is not a document's fault, so it never makes a dead letter.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from pillows.parallel.process import Cause

#: Deaths with the same changes before they are halved.
MAX_DEATHS = 3
#: Consecutive signals from outside to workers with the same single document.
MAX_KILLED = 10


class Verdict(StrEnum):
    """The next action."""

    AGAIN = "again"  # give the changes to another worker
    HALVE = "halve"  # give it the halves, one after the other
    DEAD_LETTER = "dead-letter"
    STOP = "stop"  # the tail cannot go on


class Deaths:
    """Counts the deaths of workers with the same changes.

    Args:
        halved: whether the changes are one half of changes that have killed workers.
    """

    def __init__(self, *, halved: bool = False) -> None:
        self._halved = halved
        self._counts = Counter[Cause]()

    def judge(self, cause: Cause, changes: int) -> Verdict:
        """Count a death, and return the next action.

        Args:
            cause: of the death.
            changes: how many changes the worker had.
        """
        self._counts[cause] += 1
        if cause is Cause.KILLED:
            return self._judge_killed(changes)
        if changes > 1:
            # A crash may have another cause, so it is repeated. A hang takes a minute, so it is not.
            is_sure = self._halved or cause is not Cause.CRASHED
            return Verdict.HALVE if is_sure or self._crashes >= MAX_DEATHS else Verdict.AGAIN
        # A worker that an operator stops (SIGSTOP) hangs, too, so one hang is not enough.
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
