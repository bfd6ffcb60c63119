"""Draw the fault of each cycle and how its run of the daemon ends.

Tell which faults and ends took effect too seldom in a full run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon.process.failpoints import PLACES
from tests.chaos.faults import FAULTS, Fault

_WRITES = [
    f"{when}-{target}" for target in ("postgres", "elasticsearch", "sqlite") for when in ("before", "after")
]
#: How a run of the daemon ends -> how often, relative to the others.
ENDS = {
    "kill": 5,
    "power": 3,
    "stop": 6,
    "hang": 2,
    "memory": 1,
    **{f"at {place}": 1 for place in (*PLACES, *_WRITES)},
}

#: A full run has this many cycles or more. Each fault and end must have taken effect `LEAST` times in it;
#: those that restart a server, `LEAST_RARE` times.
FULL_CYCLES, LEAST, LEAST_RARE = 300, 5, 3

#: The weight of a draw that took no effect; above 0, so that a fault that never does is not drawn forever.
IN_VAIN = 0.05


@dataclass(frozen=True, slots=True)
class Cycle:
    """One run of the daemon: the fault that strikes it, and how it ends."""

    fault: Fault
    end: str


class BalancedDraw:
    """Draws names at random, rarer ones first, so that each takes effect in proportion to its weight.

    Args:
        weights: name -> how often, relative to the others.
        chance: the random numbers.
    """

    def __init__(self, weights: Mapping[str, int], chance: random.Random) -> None:
        self._weights = weights
        self._chance = chance
        self._done = dict.fromkeys(weights, 0.0)

    def draw(self) -> str:
        def share(name: str) -> float:
            return (self._done[name] + self._chance.random()) / self._weights[name]

        return min(self._done, key=share)

    def record(self, name: str, *, took_effect: bool) -> None:
        self._done[name] += 1.0 if took_effect else IN_VAIN


class Plan:
    """Draws cycles: each fault takes effect equally often, rare ones half as often, and each end by `ENDS`.

    Args:
        chance: the random numbers.
        faults: those that this machine can have.
    """

    def __init__(self, chance: random.Random, faults: Sequence[str] = tuple(FAULTS)) -> None:
        self.faults = faults
        self._faults = BalancedDraw({name: 1 if FAULTS[name].rare else 2 for name in faults}, chance)
        self._ends = BalancedDraw(ENDS, chance)

    def draw(self) -> Cycle:
        return Cycle(FAULTS[self._faults.draw()], self._ends.draw())

    def record(self, cycle: Cycle, *, fault_hit: bool, end_hit: bool) -> None:
        """Record whether the fault and the end of a cycle took effect."""
        self._faults.record(cycle.fault.name, took_effect=fault_hit)
        self._ends.record(cycle.end, took_effect=end_hit)

    def find_lacking(self, hit: Counter[str]) -> list[str]:
        """Return the faults and ends that took effect less often than a full run requires."""
        least = {name: LEAST_RARE if FAULTS[name].rare else LEAST for name in self.faults}
        least |= dict.fromkeys(ENDS, LEAST)
        return [f"{name}: {hit[name]} of {count}" for name, count in least.items() if hit[name] < count]
