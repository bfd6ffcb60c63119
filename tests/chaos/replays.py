"""Counts what a run of the daemon wrote though an earlier one had written it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.lines import State
from tests.chaos.plan import Cycle
from tests.chaos.score import Score
from tests.chaos.stage import REPLAY_BOUND

#: Line -> the states of documents that were sent to a target.
Written = Mapping[str, set[State]]


class Replays:
    """Judges each run by how the one before has ended.

    What had not been acknowledged when a target failed or the feed was taken back is rightly written
    again, however much it is, and so is all that a refusing disk did not keep: then nothing is counted
    until everything has been compared.

    Args:
        score: gets the counts, and what is too many.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self._written: dict[str, set[State]] = {}
        self._rereads = self._ended_clean = self._lost_power = False

    def count(self, found: Written, *, cycle: Cycle | None, stopped: bool) -> str:
        """Counts what the run that has just ended wrote again; returns it in words.

        Args:
            found: what it wrote.
            cycle: which it was; None for one that became equal, without a fault.
            stopped: whether it was stopped, and said that all was well.
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
        # Of PostgreSQL's lines nothing can be said: what was sent and not committed is sent again.
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
