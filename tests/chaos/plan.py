"""What happens in which cycle, and how often everything must have happened in the end."""

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
#: How the daemon's runs end, and how often beside each other.
ENDS = {
    "kill": 5,
    "power": 3,
    "stop": 6,
    "hang": 2,
    "memory": 1,
    **{f"at {place}": 1 for place in (*PLACES, *_WRITES)},
}

#: From so many cycles on, everything must have been felt so often; what takes a server's restart less often.
FULL_CYCLES, LEAST, LEAST_RARE = 300, 5, 3

#: What came to nothing counts so much, so that what never comes to anything is not drawn for ever.
IN_VAIN = 0.05


@dataclass(frozen=True, slots=True)
class Cycle:
    """One run of the daemon: what happens to it, and how it ends."""

    fault: Fault
    end: str


class Lots:
    """Draws what has happened least up to now, by chance where several have.

    Args:
        weights: how often each is to happen, beside the others.
        chance: draws.
    """

    def __init__(self, weights: Mapping[str, int], chance: random.Random) -> None:
        self._weights = weights
        self._chance = chance
        self._done = dict.fromkeys(weights, 0.0)

    def draw(self) -> str:
        def share(name: str) -> float:
            return (self._done[name] + self._chance.random()) / self._weights[name]

        return min(self._done, key=share)

    def happened(self, name: str, *, really: bool) -> None:
        self._done[name] += 1.0 if really else IN_VAIN


class Plan:
    """Draws cycles, so that every fault is felt equally often, rare ones half as often; so with the ends.

    Args:
        chance: draws.
        faults: those that this machine can have.
    """

    def __init__(self, chance: random.Random, faults: Sequence[str] = tuple(FAULTS)) -> None:
        self.faults = faults
        self._faults = Lots({name: 1 if FAULTS[name].rare else 2 for name in faults}, chance)
        self._ends = Lots(ENDS, chance)

    def draw(self) -> Cycle:
        return Cycle(FAULTS[self._faults.draw()], self._ends.draw())

    def happened(self, cycle: Cycle, *, felt: bool, hit: bool) -> None:
        """What became of a cycle: whether its fault was felt, and its end came."""
        self._faults.happened(cycle.fault.name, really=felt)
        self._ends.happened(cycle.end, really=hit)

    def lacking(self, hit: Counter[str]) -> list[str]:
        """What was not felt as often as it must be in a run of `FULL_CYCLES` or more."""
        least = {name: LEAST_RARE if FAULTS[name].rare else LEAST for name in self.faults}
        least |= dict.fromkeys(ENDS, LEAST)
        return [f"{name}: {hit[name]} of {count}" for name, count in least.items() if hit[name] < count]
