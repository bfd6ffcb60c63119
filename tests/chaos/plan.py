"""What happens in which cycle, and how often everything must have happened in the end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pillows.failpoints import PLACES
from tests.chaos.faults import FAULTS, Fault

#: How the daemon's runs end, and how often in one round of the bag.
ENDS = {"kill": 5, "power": 3, "stop": 6, "hang": 2, "memory": 1, **{f"at {place}": 1 for place in PLACES}}

#: From so many cycles on, everything must have been felt so often; what takes a server's restart less often.
FULL_CYCLES, LEAST, LEAST_RARE = 300, 5, 3

#: What came to nothing is drawn again in the same round, so often at most.
MOST_AGAIN = 4


@dataclass(frozen=True, slots=True)
class Cycle:
    """One run of the daemon: what happens to it, and how it ends."""

    fault: Fault
    end: str


class Bag:
    """Everything once in each round, in an order of its own.

    Args:
        items: what is drawn; more often what is there more often.
        chance: draws.
    """

    def __init__(self, items: Sequence[str], chance: random.Random) -> None:
        self._items = items
        self._chance = chance
        self._left: list[str] = []
        self._again: Counter[str] = Counter()

    def draw(self) -> str:
        if not self._left:
            self._left = self._chance.sample(self._items, len(self._items))
            self._again.clear()
        return self._left.pop()

    def put_back(self, item: str) -> None:
        """Is to come again in this round: this time it came to nothing."""
        if self._again[item] < MOST_AGAIN:
            self._again[item] += 1
            self._left.insert(self._chance.randint(0, len(self._left)), item)


class Plan:
    """Draws cycles: every end and every fault comes equally often, rare ones half as often.

    Args:
        chance: draws.
        faults: those that this machine can have.
    """

    def __init__(self, chance: random.Random, faults: Sequence[str] = tuple(FAULTS)) -> None:
        often = {name: 3 if name == "none" else 1 if FAULTS[name].rare else 2 for name in faults}
        self.faults = faults
        self._faults = Bag(_spread(often), chance)
        self._ends = Bag(_spread(ENDS), chance)

    def draw(self) -> Cycle:
        return Cycle(FAULTS[self._faults.draw()], self._ends.draw())

    def happened(self, cycle: Cycle, *, felt: bool, hit: bool) -> None:
        """What became of a cycle: whether its fault was felt, and its end came."""
        if not felt:
            self._faults.put_back(cycle.fault.name)
        if not hit:
            self._ends.put_back(cycle.end)

    def lacking(self, hit: Mapping[str, int], cycles: int) -> list[str]:
        """What was not felt often enough in a run of so many cycles."""
        if cycles < FULL_CYCLES:
            return []
        least = {name: LEAST_RARE if FAULTS[name].rare else LEAST for name in self.faults}
        least |= dict.fromkeys(ENDS, LEAST)
        return [f"{name}: {hit[name]} of {count}" for name, count in least.items() if hit[name] < count]


def _spread(often: Mapping[str, int]) -> list[str]:
    return [name for name, count in often.items() for _ in range(count)]
