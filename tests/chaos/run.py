"""Cycles: the daemon starts, a fault strikes, the daemon ends; now and then everything is compared."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import gevent
from gevent.util import print_run_info

from daemon.cli.exit_codes import ExitCode
from tests.chaos.ends import freeze, starve
from tests.chaos.faults import FAULTS
from tests.chaos.oracle import UNREADABLE, Verdict, judge
from tests.chaos.plan import FULL_CYCLES, Cycle, Plan
from tests.chaos.replays import Replays
from tests.chaos.score import ChaosError, Score
from tests.chaos.shim import power_off
from tests.chaos.stage import READY_SECONDS, SHUTDOWN_SECONDS, Stage

#: Once the faults have stopped, everything becomes equal again: for how long the same may be
#: wrong meanwhile, and how long a fresh write may take to be visible everywhere.
RECOVERY_SECONDS, PROBE_SECONDS = 60.0, 10.0

#: States in which nothing more is to be expected of a pillow.
RESTING = {"live", "failed"}

#: A cycle takes some seconds. One that takes so long, beside all that may be waited for, hangs, in the
#: harness itself.
HUNG_SECONDS = 300.0

#: How long a place where the daemon is to die may take to be reached while the fault is in force, and then.
UNDER_FAULT_SECONDS, WAIT_SECONDS = 1.0, 4.0

#: Where the daemon is to die it does so when a place is reached for the first time, or one of so many more
#: times, that the fault is in force meanwhile more often than not. A power failure needs something to undo.
REACHED = {"transform": 400, "checkpoint-write": 12, "checkpoint-rename": 3, "checkpoint-fsync": 12}
REACHED |= {"dead-letter": 3, "drain": 1}
REACHED_ELSE, REACHED_BY_POWER = 24, (8, 30)


class Chaos:
    """A run.

    Args:
        stage: where it runs.
        seed: of what is drawn.
        say: told of every cycle.
        pace_seconds: how long a fault is in force, about.
        recovery_seconds: for so long the same may be wrong before everything is equal again.
        probe_seconds: how long a fresh write may take to be visible.
        wait_seconds: so long a fault on a line may take to be felt, and a place to be reached, before the
            daemon is ended anyway.
        patience_seconds: the same, of pillows that say they are live, or that they have failed.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        *,
        say: Any = print,
        pace_seconds: float = 0.7,
        recovery_seconds: float = RECOVERY_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        patience_seconds: float = RECOVERY_SECONDS,
    ) -> None:
        self.stage = stage
        self.score = Score()
        self._random = random.Random(seed)
        self.plan = Plan(self._random, [name for name in FAULTS if FAULTS[name].possible(stage)])
        self._say = say
        self._pace_seconds = pace_seconds
        self._recovery_seconds = recovery_seconds
        self._probe_seconds = probe_seconds
        self._wait_seconds = wait_seconds
        self._patience_seconds = patience_seconds
        self._hung_seconds = HUNG_SECONDS + recovery_seconds + probe_seconds + patience_seconds
        self._replays = Replays(self.score)
        self._stopped = False
        self._last = ""

    def run(self, cycles: int, *, check_every: int = 20, minutes: float = math.inf) -> Score:
        """Runs so many cycles, or fewer when the time is up, with a check after some and at the end.

        Args:
            cycles: how many.
            check_every: so many cycles, everything is compared.
            minutes: when the time is up.

        Raises:
            ChaosError: something was lost, did not come back, was done again, or never happened.
        """
        end_at = time.monotonic() + minutes * 60
        for number in range(1, cycles + 1):
            if time.monotonic() > end_at:
                self._say(f"the time is up after {number - 1} of {cycles} cycles")
                break
            cycle = self.plan.draw()
            began = time.monotonic()
            with self._not_hanging(cycle):
                self.cycle(cycle)
            self.score.cycles = number
            taken = time.monotonic() - began
            self._say(f"{number}/{cycles} {cycle.fault.name}; {cycle.end}; {taken:.1f} s; {self._last}")
            if number % check_every == 0 and number < cycles:
                self.check()
        self.check()
        self.calm_stop()
        self._insist_on_enough()
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

    def calm_stop(self) -> None:
        """Clean stops under load; the runs after them write nothing twice."""
        for _ in range(2):
            self._start({}, gently=True)
            self.stage.ready()
            self._wait(self.stage.writes)
            self._stop_calmly()

    # --- one cycle

    def cycle(self, cycle: Cycle) -> None:
        """One run of the daemon."""
        stage, end = self.stage, cycle.end
        course = cycle.fault.course(stage, self._random)
        environ = cast("Mapping[str, str]", next(course))
        # Between a write or a rename and its fsync the power makes a difference.
        place = "checkpoint-fsync" if end == "power" else end.removeprefix("at ") if " " in end else ""
        if place:
            environ = self._armed(environ, place, forgetful=end == "power")
        self.score.drawn.update([cycle.fault.name, end])
        self._start(environ, forgetful=end == "power")
        stage.ready()
        self._insist_on_a_start()
        self._wait(stage.writes)
        gevent.sleep(0.5 * self._random.random())
        alive = stage.daemon.child.poll() is None
        next(course)
        if cycle.fault.on_line:
            self._wait(lambda: any(line.felt for line in stage.lines.values()))
        gevent.sleep(self._pace_seconds * (0.3 + 1.4 * self._random.random()))
        if place == "drain" and alive:
            stage.daemon.signal(signal.SIGTERM)
        if place:
            self._dies(UNDER_FAULT_SECONDS)
            felt = next(course) is True
            stage.heal()
            hit = self._died(end)
        else:
            hit = self._end(end, calm=cycle.fault.name == "none")
            felt = next(course) is True
            stage.heal()
        felt = felt and (alive or cycle.fault.at_start)
        self.score.hit.update({cycle.fault.name: int(felt), end: int(hit)})
        self.plan.happened(cycle, felt=felt, hit=hit)
        self._count_replays(cycle)
        self._last += "".join(
            f", {name} in vain" for name, done in ((cycle.fault.name, felt), (end, hit)) if not done
        )

    def _start(self, environ: Mapping[str, str], *, forgetful: bool = False, gently: bool = False) -> None:
        stage = self.stage
        stage.log_from = stage.daemon.log.stat().st_size if stage.daemon.log.exists() else 0
        stage.start(environ, forgetful=forgetful)
        for line in stage.lines.values():
            line.felt = 0
        self._write(gently=gently)

    def _insist_on_a_start(self) -> None:
        """No fault makes the configuration wrong: a daemon that says so is in no state to be tested."""
        if self.stage.daemon.child.poll() == ExitCode.CONFIG:
            raise ChaosError(f"refused to start: {self.stage.daemon.log.read_text()[-2000:]}")

    def _write(self, *, gently: bool) -> None:
        """Lets the writers write; gently they purge nothing.

        A stop does not wait for the look, over seconds, at a document that may have gone back.
        """
        for writer in self.stage.writers.values():
            writer.resume(purges=not gently)

    def _armed(self, environ: Mapping[str, str], place: str, *, forgetful: bool) -> Mapping[str, str]:
        least, most = REACHED_BY_POWER if forgetful else (1, REACHED.get(place, REACHED_ELSE))
        mine = f"{place}:{self._random.randint(least, most)}"
        given = environ.get("PILLOWD_FAILPOINT")
        setting = f"{given},{mine}" if given else mine
        return {**environ, "PILLOWD_FAILPOINT": setting, "PILLOWD_TESTING": "1"}

    def _died(self, end: str) -> bool:
        """Whether the daemon has died in its place; of a power failure, whether it took anything away."""
        died = self._dies(self._wait_seconds if end != "power" else 0.5)
        self._kill()
        if end != "power":
            return died
        undone = power_off(self.stage.undo_path)
        self.score.events["renames undone"] += undone
        return undone > 0

    def _dies(self, seconds: float) -> bool:
        child = self.stage.daemon.child
        self._wait(lambda: False, seconds)
        return bool(child.poll() == -signal.SIGKILL)

    def _wait(self, holds: Callable[[], bool], seconds: float | None = None) -> None:
        """Waits until something holds, or the daemon has died, or the time is up."""
        child = self.stage.daemon.child
        until = time.monotonic() + (self._wait_seconds if seconds is None else seconds)
        while not holds() and child.poll() is None and time.monotonic() < until:
            gevent.sleep(0.02)

    def _end(self, end: str, *, calm: bool) -> bool:
        """Ends the daemon; whether the end was felt."""
        daemon, child = self.stage.daemon, self.stage.daemon.child
        if child.poll() is not None:
            self.score.troubles.append(f"ended by itself with {child.returncode} before {end}")
            return False
        felt = True
        if end == "stop":
            self._stop(calm=calm)
        elif end == "hang":
            felt = freeze(daemon, self._random)
        elif end == "memory":
            felt = starve(daemon, self._random, seconds=self._wait_seconds)
        self._kill()
        return felt

    def _kill(self) -> None:
        if self.stage.daemon.child.poll() is None:
            self.stage.kill()

    def _stop(self, *, calm: bool) -> None:
        began = time.monotonic()
        self.stage.daemon.signal(signal.SIGTERM)
        code = self.stage.daemon.ended(seconds=READY_SECONDS)
        taken = time.monotonic() - began
        self.score.stop_seconds.append(taken)
        self._stopped = code == 0
        # What is not written when the time is up is given up, and said with the code.
        if calm and code != 0 and taken < SHUTDOWN_SECONDS:
            self.score.troubles.append(f"a calm stop ended with {code}")

    def _stop_calmly(self) -> None:
        """A stop while there is work, and nothing wrong."""
        self._write(gently=True)
        gevent.sleep(self._pace_seconds)
        self._stop(calm=True)
        self._count_replays()

    def _count_replays(self, cycle: Cycle | None = None) -> None:
        self._last = self._replays.count(self.stage.written(), cycle=cycle, stopped=self._stopped)
        self._stopped = False

    # --- checks

    def check(self) -> None:
        """Without faults: everything becomes equal, a fresh write is visible, a stop under load is clean.

        Raises:
            ChaosError: it does not.
        """
        with self._not_hanging("check"):
            began = time.monotonic()
            self._start({})
            self.find_back()
            self._stop_calmly()
            self.score.checks += 1
        taken, waited = time.monotonic() - began, self.score.recovery_seconds[-1]
        self._say(f"equal; {taken:.1f} s, {waited:.1f} of it waiting")

    def find_back(self) -> None:
        """The running daemon makes everything equal, and finds back after a last fault.

        Raises:
            ChaosError: it does not.
        """
        began = time.monotonic()
        for writer in self.stage.writers.values():
            writer.pause()
            writer.heal()
        verdict = self._settled()
        self.score.recovery_seconds.append(time.monotonic() - began)
        self._collect()
        if verdict:
            self.score.verdict = verdict
            raise ChaosError(f"{verdict}; {self.stage.states()}")
        self._probe()

    def _settled(self) -> Verdict:
        """What is still wrong once nothing is, or once the same was wrong for too long."""
        before, since = Verdict().counts, time.monotonic()
        while True:
            if self.stage.daemon.child.poll() is not None:
                raise ChaosError(f"ended: {self.stage.daemon.log.read_text()[-2000:]}")
            said = self.stage.said()
            live, resting = said == {"live"}, bool(said) and said <= RESTING
            waited = time.monotonic() - since
            if resting or waited > self._recovery_seconds:
                verdict = self._judged()
                if live and not verdict:
                    return verdict
                if verdict.counts != before:
                    before, since = verdict.counts, time.monotonic()
                elif waited > (self._patience_seconds if resting else self._recovery_seconds):
                    if not verdict:
                        raise ChaosError(f"not live: {self.stage.states()}")
                    return verdict
            gevent.sleep(0.3)

    def _judged(self) -> Verdict:
        whole = Verdict()
        try:
            held = self.stage.targets()
        except Exception as error:  # noqa: BLE001 - a table or an index that is not there yet
            whole.add(UNREADABLE, f"{type(error).__name__}: {error}")
            return whole
        for database, targets in held.items():
            verdict = judge(self.stage.writers[database].truth, targets)
            whole.counts += verdict.counts
            whole.examples += verdict.examples
        return whole

    def _probe(self) -> None:
        """After a last fault in this very process: it must find back by itself."""
        stage = self.stage
        for line in stage.lines.values():
            line.reset()
        ids = {database: writer.write_one() for database, writer in stage.writers.items()}
        began = time.monotonic()
        while not stage.visible(ids):
            if time.monotonic() - began > self._probe_seconds:
                raise ChaosError(f"no fresh write within {self._probe_seconds:g} s: {stage.states()}")
            gevent.sleep(0.1)
        self.score.probe_seconds.append(time.monotonic() - began)

    def _collect(self) -> None:
        score, stage = self.score, self.stage
        with stage.daemon.log.open(errors="replace") as log:  # a kill may leave half a line
            log.seek(stage.log_read)
            score.logged(log.read())
            stage.log_read = log.tell()
        score.changes = sum(writer.sent for writer in stage.writers.values())
        score.documents = len(stage.writers["all"].truth.documents)

    # --- the run itself

    def _insist_on_enough(self) -> None:
        score = self.score
        lacking = self.plan.lacking(score.hit) + score.lacking()
        if lacking and score.cycles >= FULL_CYCLES:
            raise ChaosError(f"not enough: {', '.join(lacking)}")
        if score.troubles:
            raise ChaosError(f"troubles: {score.troubles}")

    @contextmanager
    def _not_hanging(self, what: object) -> Iterator[None]:
        hung = gevent.Timeout(self._hung_seconds)
        try:
            with hung:
                yield
        except gevent.Timeout as timeout:
            if timeout is not hung:
                raise
            print_run_info()
            raise ChaosError(f"hangs: {what}") from None
