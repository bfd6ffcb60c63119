"""Cycles: the daemon starts, a fault strikes, the daemon ends; now and then everything is compared."""

from __future__ import annotations

import math
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent
import psutil

from pillows.failpoints import PLACES
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.oracle import Verdict, judge
from tests.chaos.shim import power_off
from tests.chaos.stage import REPLAY_BOUND, Stage

#: The writers never rest: a row that the server sends in the moment in which the feed is closed was counted
#: on the line and never taken. `tests/acceptance/test_crash.py` holds the exact promise (none) with a source
#: that rests.
ON_THE_WIRE = 3

#: How the daemon's runs end, and how often in one round of the bag.
ENDS = {"kill": 5, "power": 3, "stop": 6, "hang": 2, "memory": 1, **{f"at {place}": 1 for place in PLACES}}

#: How long everything may take to be equal again once the faults have stopped, and a fresh write to be
#: visible everywhere.
RECOVERY_SECONDS, PROBE_SECONDS = 60.0, 10.0


_EVENT = re.compile(r'"event": ?"([^"]+)"')


class ChaosError(AssertionError):
    """Something was lost, or did not come back."""


@dataclass(slots=True)
class Score:
    """What a run has seen."""

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


@dataclass(frozen=True, slots=True)
class Cycle:
    """One run of the daemon: what happens to it, and how it ends."""

    fault: Fault
    end: str


def bag(items: Sequence[str], chance: random.Random) -> Iterator[str]:
    """Everything once in each round, in an order of its own."""
    while True:
        yield from chance.sample(items, len(items))


def plan(cycles: int, chance: random.Random) -> Iterator[Cycle]:
    """Draws cycles; every end and every fault comes equally often, rare ones half as often."""
    ends = bag([name for name, weight in ENDS.items() for _ in range(weight)], chance)
    faults = bag(
        [
            name
            for name, fault in FAULTS.items()
            for _ in range(3 if name == "none" else 1 if fault.rare else 2)
        ],
        chance,
    )
    for _ in range(cycles):
        yield Cycle(FAULTS[next(faults)], next(ends))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a process is."""

    mib: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Sizes:
        return cls(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())

    @classmethod
    def median(cls, sizes: Sequence[Sizes]) -> Sizes:
        at = len(sizes) // 2
        columns = zip(*((one.mib, one.descriptors, one.threads) for one in sizes), strict=True)
        return cls(*(sorted(column)[at] for column in columns))  # type: ignore[arg-type]


class Chaos:
    """A run.

    Args:
        stage: where it runs.
        seed: of what is drawn.
        say: told of every cycle.
        pace_seconds: how long a fault is in force, about.
        recovery_seconds: how long everything may take to be equal again.
        patience_seconds: for so long the same is wrong in pillows that say they are live: it stays so.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        *,
        say: Any = print,
        pace_seconds: float = 0.7,
        recovery_seconds: float = RECOVERY_SECONDS,
        patience_seconds: float = math.inf,
    ) -> None:
        self.stage = stage
        self.score = Score()
        self._random = random.Random(seed)
        self._say = say
        self._pace_seconds = pace_seconds
        self._recovery_seconds = recovery_seconds
        self._patience_seconds = patience_seconds
        self._seen: set[bytes] = set()
        self._ended_clean = False

    def run(self, cycles: int, *, check_every: int = 20, minutes: float = math.inf) -> Score:
        """Runs so many cycles, or fewer when the time is up, with a check after some and at the end."""
        end_at = time.monotonic() + minutes * 60
        for number, cycle in enumerate(plan(cycles, self._random), 1):
            if time.monotonic() > end_at:
                break
            self.score.cycles = number
            self.cycle(cycle)
            self._say(f"{number}/{cycles} {cycle.fault.name}; {cycle.end}; {self._now()}")
            if number % check_every == 0 and number < cycles:
                self.check()
        self.check()
        self.calm_stop()
        return self.score

    def insist(self, cycle: Cycle, times: int) -> None:
        """Runs one cycle again and again, twice for each check.

        Raises:
            ChaosError: something was lost, or did not come back.
        """
        for _ in range(times):
            self.cycle(cycle)
            self.cycle(cycle)
            self.check()

    def soak(self, minutes: float) -> tuple[Sizes, Sizes]:
        """One process under one fault after the other. Returns its sizes early and late.

        Raises:
            ChaosError: something was lost, or did not come back.
        """
        stage = self.stage
        stage.start({})
        self._write_for(stage.ready)
        process = psutil.Process(stage.daemon.child.pid)
        sizes = []
        end_at = time.monotonic() + minutes * 60
        while time.monotonic() < end_at:
            fault = FAULTS[self._random.choice([name for name in FAULTS if _is_light(name)])]
            course = fault.course(stage, self._random)
            next(course), next(course)
            gevent.sleep(2.0)
            self.score.hit[fault.name] += next(course) is True
            stage.heal()
            gevent.sleep(3.0)
            for line in stage.lines.values():
                line.connections = line.connections[-50:]
                line.forget()
            sizes.append(Sizes.of(process))
        self._pause_and_heal()
        if verdict := self._settled():
            raise ChaosError(f"{verdict}; {stage.states()}")
        self._probe()
        self._collect()
        warm = sizes[len(sizes) // 5 :]
        return Sizes.median(warm[: len(warm) // 3]), Sizes.median(warm[-len(warm) // 3 :])

    # --- one cycle

    def cycle(self, cycle: Cycle) -> None:
        """One run of the daemon."""
        stage, end = self.stage, cycle.end
        course = cycle.fault.course(stage, self._random)
        environ: Mapping[str, str] = next(course)  # type: ignore[assignment]
        # Between a rename and the directory's fsync the power makes a difference.
        place = "checkpoint-fsync" if end == "power" else end.removeprefix("at ") if " " in end else ""
        if place:
            environ = self._armed(environ, place, forgetful=end == "power")
        self.score.drawn.update([cycle.fault.name, end])
        stage.log_from = stage.daemon.log.stat().st_size if stage.daemon.log.exists() else 0
        stage.start(environ, forgetful=end == "power")
        self._write_for(stage.ready)
        gevent.sleep(0.5 * self._random.random())
        next(course)
        self._write_for(lambda: gevent.sleep(self._pace_seconds * (0.3 + 1.4 * self._random.random())))
        self._end(end, place, calm=cycle.fault.name == "none")
        felt = next(course)
        stage.heal()
        self.score.hit[cycle.fault.name] += felt is True
        self._count_replays(rereads=cycle.fault.rereads)
        self._ended_clean = end == "stop" and cycle.fault.name == "none"

    def _armed(self, environ: Mapping[str, str], place: str, *, forgetful: bool) -> Mapping[str, str]:
        most = 12 if place.startswith(("transform", "checkpoint")) else 3
        most, least = (30, 8) if forgetful else (most, 1)
        mine = f"{place}:{1 if place in ('drain', 'dead-letter') else self._random.randint(least, most)}"
        given = environ.get("PILLOWD_FAILPOINT")
        return {**environ, "PILLOWD_FAILPOINT": f"{given},{mine}" if given else mine}

    def _write_for(self, wait: Any) -> None:
        for writer in self.stage.writers.values():
            writer.resume()
        wait()

    def _end(self, end: str, place: str, *, calm: bool) -> None:
        daemon, child = self.stage.daemon, self.stage.daemon.child
        if place:
            if place == "drain":
                daemon.signal(signal.SIGTERM)
            died = self._dies(child, 1.5 if end == "power" else 6.0)
            self.score.hit[end] += died or end == "power"
        elif child.poll() is not None:
            self.score.troubles.append(f"ended by itself with {child.returncode} before {end}")
        elif end == "stop":
            self._stop(calm=calm)
        elif end == "hang":
            daemon.signal(signal.SIGSTOP)
            gevent.sleep(self._random.uniform(0.5, 2.0))
            daemon.signal(signal.SIGCONT)
            gevent.sleep(self._random.random())
            self.score.hit[end] += 1
        elif end == "memory":
            self._starve(child.pid)
        elif end == "kill":
            self.score.hit[end] += 1
        if child.poll() is None:
            self.stage.kill()
        if end == "power":
            self.score.events["renames undone"] += power_off(self.stage.folder / "undo")

    def _dies(self, child: Any, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < until:
            gevent.sleep(0.02)
        return bool(child.poll() == -signal.SIGKILL)

    def _starve(self, pid: int) -> None:
        """Takes all memory but what the process has; what then goes wrong ends with a kill."""
        used = psutil.Process(pid).memory_info().vms
        psutil.Process(pid).rlimit(psutil.RLIMIT_AS, (used, used))
        gevent.sleep(1.0)
        self.score.hit["memory"] += 1

    def _stop(self, *, calm: bool) -> None:
        began = time.monotonic()
        code = self.stage.daemon.stop()
        self.score.stop_seconds.append(time.monotonic() - began)
        self.score.hit["stop"] += 1
        if calm and code != 0:
            self.score.troubles.append(f"a calm stop ended with {code}")

    def _count_replays(self, *, rereads: bool) -> None:
        now = self.stage.lines["couch"].rows()
        replays = len(now & self._seen)
        self._seen |= now
        if rereads:
            return
        (self.score.stop_replays if self._ended_clean else self.score.replays).append(replays)

    # --- checks

    def check(self) -> None:
        """Without faults: everything becomes equal, and a fresh write is visible everywhere.

        Raises:
            ChaosError: it does not.
        """
        stage, score = self.stage, self.score
        self._pause_and_heal()
        stage.start({})
        began = time.monotonic()
        verdict = self._settled()
        score.recovery_seconds.append(time.monotonic() - began)
        score.checks += 1
        self._collect()
        if verdict:
            score.verdict = verdict
            raise ChaosError(f"{verdict}; {stage.states()}")
        self._probe()
        stage.kill()
        self._count_replays(rereads=False)
        self._ended_clean = False

    def _pause_and_heal(self) -> None:
        for writer in self.stage.writers.values():
            writer.pause()
            writer.heal()

    def _settled(self) -> Verdict:
        until = time.monotonic() + self._recovery_seconds
        before, since = Verdict(), time.monotonic()
        while True:
            if self.stage.daemon.child.poll() is not None:
                raise ChaosError(f"ended: {self.stage.daemon.log.read_text()[-2000:]}")
            done = self.stage.live()
            late = time.monotonic() > until
            if done or late:
                verdict = self._judged()
                if late and not verdict and not done:
                    raise ChaosError(f"not live: {self.stage.states()}")
                if verdict.counts != before.counts:
                    before, since = verdict, time.monotonic()
                if not verdict or late or time.monotonic() - since > self._patience_seconds:
                    return verdict
            gevent.sleep(0.3)

    def _judged(self) -> Verdict:
        whole = Verdict()
        try:
            held = self.stage.targets()
        except Exception as error:  # noqa: BLE001 - a table or an index that is not there yet
            whole.add("missing", f"{type(error).__name__}: {error}")
            return whole
        for database, targets in held.items():
            verdict = judge(self.stage.writers[database].truth, targets)
            whole.counts += verdict.counts
            whole.examples += verdict.examples
        return whole

    def _probe(self) -> None:
        """After a last fault in this very process: it must find back by itself."""
        stage = self.stage
        for name in ("couch", "postgres", "elasticsearch"):
            stage.lines[name].reset()
        id = stage.writers["all"].write_one()
        began = time.monotonic()
        while not all(id in rows for rows in stage.targets()["all"].values()):
            if time.monotonic() - began > PROBE_SECONDS:
                raise ChaosError(f"no fresh write within {PROBE_SECONDS:g} s: {stage.states()}")
            gevent.sleep(0.1)
        self.score.probe_seconds.append(time.monotonic() - began)

    def calm_stop(self) -> None:
        """A clean stop under load; the run after it is given nothing twice."""
        self.cycle(Cycle(FAULTS["none"], "stop"))
        self.cycle(Cycle(FAULTS["none"], "stop"))
        if max(self.score.stop_replays, default=0) > ON_THE_WIRE:
            raise ChaosError(f"after clean stops so many rows came again: {self.score.stop_replays}")
        worst = max(self.score.replays, default=0)
        if worst > REPLAY_BOUND:
            raise ChaosError(f"{worst} rows came again after a kill, at most {REPLAY_BOUND} may")

    def _collect(self) -> None:
        score, stage = self.score, self.stage
        log = stage.daemon.log.read_text(errors="replace")  # a kill may leave half a line
        for name, count in Counter(_EVENT.findall(log)).items():
            score.events[name] = count
        score.changes = sum(writer.truth.n for writer in stage.writers.values())
        score.documents = len(stage.writers["all"].truth.documents)

    def _now(self) -> str:
        return f"again {self.score.replays[-1:] or self.score.stop_replays[-1:]}"


def _is_light(fault: str) -> bool:
    """Whether a fault strikes a process that runs already, and soon ends."""
    return not fault.startswith(("state", "clock")) and not FAULTS[fault].rare
