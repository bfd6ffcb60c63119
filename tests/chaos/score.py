"""Counts and times of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.oracle import Verdict

_EVENT = re.compile(r'"event": ?"([^"]+)"')

#: Events that a long run must have logged; without one, the faults missed their purpose.
SOMETIMES = (
    "retry",
    "dead_letter.added",
    "written again",
    "checkpoint.not_saved",
    "source.rewound",
    "pass.completed",
    "renames undone",
    "lap.bulk_get",
    "lap.include_docs",
)

#: Required of a full run (`plan.FULL_CYCLES`).
CHANGES_PER_CYCLE, STOP_SECONDS = 200, 10.0


class ChaosError(AssertionError):
    """A document was lost, or the daemon did not recover."""


@dataclass(slots=True)
class Score:
    """Counts and times of a run.

    Attributes:
        cycles: number of cycles.
        drawn, hit: how often each fault and end was drawn, and took effect.
        verdict: the last comparison.
        checks: number of comparisons.
        replays: number of states that were written again, after each kill.
        stop_replays: the same after each clean stop.
        stop_seconds, recovery_seconds, probe_seconds: duration of each.
        events: name -> how often the daemon logged it, or the harness counted it.
        changes, documents: number of changes in the source, and of its documents.
        troubles: everything else that is wrong.
    """

    cycles: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    checks: int = 0
    replays: list[int] = field(default_factory=list)
    stop_replays: list[int] = field(default_factory=list)
    stop_seconds: list[float] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    probe_seconds: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    documents: int = 0
    troubles: list[str] = field(default_factory=list)

    def count_events(self, log: str) -> None:
        """Count the events in a log."""
        self.events.update(_EVENT.findall(log))

    def get_sometimes(self) -> dict[str, int]:
        """Return how often each of `SOMETIMES` was seen."""
        return {name: self.events[name] for name in SOMETIMES} | {"written again": sum(self.replays)}

    def find_lacking(self) -> list[str]:
        """Return the requirements of a full run that this one missed."""
        found = [f"{name}: never" for name, count in self.get_sometimes().items() if not count]
        if self.changes < CHANGES_PER_CYCLE * self.cycles:
            found.append(f"changes: {self.changes} in {self.cycles} cycles, {CHANGES_PER_CYCLE} each wanted")
        if (slowest := p99(self.stop_seconds)) >= STOP_SECONDS:
            found.append(f"stops: p99 {slowest:.2f} s, {STOP_SECONDS:g} promised")
        return found


def p99(taken: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(taken)[int(len(taken) * 0.99)] if taken else 0.0
