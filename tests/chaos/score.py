"""What a run has seen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.oracle import Verdict

_EVENT = re.compile(r'"event": ?"([^"]+)"')

#: What must have been seen in a long run, or the faults did not do what they were for.
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

#: What is promised of a run of 300 cycles (`plan.FULL_CYCLES`) or more.
CHANGES_PER_CYCLE, STOP_SECONDS = 200, 10.0


class ChaosError(AssertionError):
    """Something was lost, or did not come back."""


@dataclass(slots=True)
class Score:
    """What a run has seen.

    Attributes:
        cycles: how many there were.
        drawn, hit: how often each fault and end was drawn, and felt.
        verdict: of the last comparison.
        checks: how many comparisons there were.
        replays: how many states were written again after each kill.
        stop_replays: the same after each clean stop.
        stop_seconds, recovery_seconds, probe_seconds: how long each took.
        events: what the daemon has logged, by name, and what else should happen sometimes.
        changes, documents: how many the source was given, and of how many documents.
        troubles: what else is wrong.
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

    def logged(self, log: str) -> None:
        """Counts what a run of the daemon has logged."""
        self.events.update(_EVENT.findall(log))

    def seen(self) -> dict[str, int]:
        """How often what should be seen sometimes was."""
        return {name: self.events[name] for name in SOMETIMES} | {"written again": sum(self.replays)}

    def lacking(self) -> list[str]:
        """What of all that a long run must come to is not there."""
        found = [f"{name}: never" for name, count in self.seen().items() if not count]
        if self.changes < CHANGES_PER_CYCLE * self.cycles:
            found.append(f"changes: {self.changes} in {self.cycles} cycles, {CHANGES_PER_CYCLE} each wanted")
        if (slowest := p99(self.stop_seconds)) >= STOP_SECONDS:
            found.append(f"stops: p99 {slowest:.2f} s, {STOP_SECONDS:g} promised")
        return found


def p99(taken: Sequence[float]) -> float:
    """The time that 99 of 100 keep."""
    return sorted(taken)[int(len(taken) * 0.99)] if taken else 0.0
