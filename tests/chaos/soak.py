"""Run one process under one fault after another, and measure whether it grows."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass

import gevent
import psutil

from tests.chaos.faults import FAULTS
from tests.chaos.run import Chaos

#: Duration of a fault, and of the pause after it.
FAULT_SECONDS, CALM_SECONDS = 2.0, 3.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """The size of a process."""

    mib: float
    descriptors: float
    threads: float
    greenlets: float

    @classmethod
    def median(cls, sizes: Sequence[Sizes]) -> Sizes:
        at = len(sizes) // 2
        return cls(*(sorted(column)[at] for column in zip(*map(astuple, sizes), strict=True)))


@dataclass(frozen=True, slots=True)
class SoakResult:
    """The result of a soak: sizes early, once the process was warm, and late."""

    minutes: float
    early: Sizes
    late: Sizes

    def list_sizes(self) -> Iterator[tuple[str, float, float]]:
        """Yield the name of each size, with its early and late value."""
        late = asdict(self.late)
        for name, early in asdict(self.early).items():
            yield "MiB" if name == "mib" else name, round(early, 1), round(late[name], 1)


def soak(chaos: Chaos, seed: int, minutes: float) -> SoakResult:
    """Run one process under dense faults.

    Raises:
        ChaosError: a document was lost, or the daemon did not recover.
    """
    stage, chance = chaos.stage, random.Random(seed)
    stage.start({}, counting=True)
    for writer in stage.writers.values():
        writer.resume()
    stage.wait_until_ready()
    sizes = []
    end_at = time.monotonic() + minutes * 60
    while time.monotonic() < end_at:
        _strike(chaos, chance)
        for line in stage.lines.values():
            line.forget()
        sizes.append(_measure(chaos))
    chaos.check_recovery()
    warm = sizes[len(sizes) // 5 :]
    return SoakResult(minutes, Sizes.median(warm[: len(warm) // 3]), Sizes.median(warm[-len(warm) // 3 :]))


def _strike(chaos: Chaos, chance: random.Random) -> None:
    """Let one fault strike the running process, and end it."""
    light = [
        fault for fault in map(FAULTS.__getitem__, chaos.plan.faults) if not (fault.at_start or fault.rare)
    ]
    fault = chance.choice(light)
    course = fault.course(chaos.stage, chance)
    next(course), next(course)
    gevent.sleep(FAULT_SECONDS)
    took_effect = next(course) is True
    chaos.stage.heal()
    chaos.score.drawn[fault.name] += 1
    chaos.score.hit[fault.name] += took_effect
    gevent.sleep(CALM_SECONDS)


def _measure(chaos: Chaos) -> Sizes:
    process = psutil.Process(chaos.stage.daemon.child.pid)
    mib = process.memory_info().rss / 2**20
    return Sizes(mib, process.num_fds(), process.num_threads(), chaos.stage.get_greenlet_count())
