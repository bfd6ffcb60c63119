"""Count the states of documents that a run of the daemon wrote again."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.lines import State
from tests.chaos.plan import Cycle
from tests.chaos.score import Score
from tests.chaos.stage import REPLAY_BOUND

#: Line -> the states of documents that were sent to a target.
Written = Mapping[str, set[State]]


class Replays:
    """Compares the writes of each run with those of the earlier ones.

    How many states may be written again depends on how the run before ended. After a rewound feed or a disk
    that refused writes there is no bound, so nothing is counted until the next comparison of all targets.

    Args:
        score: receives the counts, and counts above the bound as troubles.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self._written: dict[str, set[State]] = {}
        self._rereads = self._ended_clean = self._lost_power = False

    def count(self, found: Written, *, cycle: Cycle | None, stopped: bool) -> str:
        """Count the states that the last run wrote again; return the count in words.

        Args:
            found: the states that it wrote.
            cycle: its cycle; None for the run of a check, which has no fault.
            stopped: whether it was stopped, and exited with 0.
        """
        again = {name: sorted(states & self._written.get(name, set())) for name, states in found.items()}
        for name, states in found.items():
            self._written.setdefault(name, set()).update(states)
        text = f"{sum(map(len, found.values()))} written"
        self._rereads = self._rereads or (cycle is not None and cycle.fault.rereads)
        if not self._rereads:
            text += f", {sum(map(len, again.values()))} again"
            self._judge(again)
        self._rereads = self._rereads and cycle is not None
        self._ended_clean = stopped and cycle is None
        self._lost_power = cycle is not None and cycle.end == "power"
        return text

    def _judge(self, again: Mapping[str, list[State]]) -> None:
        if self._ended_clean:
            self._after_stop(again)
            return
        # PostgreSQL's lines do not count: rows that were sent but not committed are rightly sent again.
        count = len(again["elasticsearch"])
        self._score.replays.append(count)
        most = REPLAY_BOUND * (2 if self._lost_power else 1)
        if count > most:
            self._score.troubles.append(f"{count} were written again after a kill, at most {most} may")

    def _after_stop(self, again: Mapping[str, list[State]]) -> None:
        count = sum(len(states) for states in again.values())
        self._score.stop_replays.append(count)
        if count:
            examples = {name: states[:3] for name, states in again.items() if states}
            self._score.troubles.append(f"after a clean stop {count} were written again: {examples}")
