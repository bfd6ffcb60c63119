"""Run cycles: start the daemon, let a fault strike, end the daemon; compare all targets at intervals."""

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

#: After the faults: the longest time without progress towards equal targets, and the longest time until a new
#: document is visible in all of them.
RECOVERY_SECONDS, PROBE_SECONDS = 60.0, 10.0

#: States in which a pillow makes no more progress by itself.
RESTING = {"live", "failed"}

#: A cycle takes a few seconds. One that takes this long, plus the configured waits, means that the harness
#: hangs.
HUNG_SECONDS = 300.0

#: Longest wait for the daemon to reach its failpoint: during the fault, and after it.
UNDER_FAULT_SECONDS, WAIT_SECONDS = 1.0, 4.0

#: Failpoint -> most passes until it kills the daemon; their number is drawn. The limits are chosen so that
#: the fault is usually in force by then. A power failure needs unsynced writes to undo.
REACHED = {"transform": 400, "checkpoint-write": 12, "checkpoint-rename": 3, "checkpoint-fsync": 12}
REACHED |= {"dead-letter": 3, "drain": 1}
REACHED_ELSE, REACHED_BY_POWER = 24, (8, 30)


class Chaos:
    """A chaos run.

    Args:
        stage: its servers and its daemon.
        seed: of everything that is drawn.
        say: called with a line of text after each cycle.
        pace_seconds: about how long a fault lasts.
        recovery_seconds: longest time without progress towards equal targets.
        probe_seconds: longest time until a new document is visible.
        wait_seconds: longest wait for a fault to take effect, or for a failpoint; then the daemon is ended.
        settled_seconds: as `recovery_seconds`, for pillows that are live or failed.
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
        settled_seconds: float = RECOVERY_SECONDS,
    ) -> None:
        self.stage = stage
        self.score = Score()
        self._random = random.Random(seed)
        self.plan = Plan(self._random, [name for name in FAULTS if FAULTS[name].is_possible(stage)])
        self._say = say
        self._pace_seconds = pace_seconds
        self._recovery_seconds = recovery_seconds
        self._probe_seconds = probe_seconds
        self._wait_seconds = wait_seconds
        self._settled_seconds = settled_seconds
        self._hung_seconds = HUNG_SECONDS + recovery_seconds + probe_seconds + settled_seconds
        self._replays = Replays(self.score)
        self._stopped = False
        self._last = ""

    def run(self, cycles: int, *, check_every: int = 20, minutes: float = math.inf) -> Score:
        """Run cycles, with a check after every few and at the end.

        Args:
            cycles: number of cycles.
            check_every: cycles between two checks.
            minutes: longest duration; then no more cycles are run.

        Raises:
            ChaosError: a document was lost, the daemon did not recover or wrote too much again, or a fault
                never took effect.
        """
        end_at = time.monotonic() + minutes * 60
        for number in range(1, cycles + 1):
            if time.monotonic() > end_at:
                self._say(f"the time is up after {number - 1} of {cycles} cycles")
                break
            cycle = self.plan.draw()
            began = time.monotonic()
            with self._limit_time(cycle):
                self.cycle(cycle)
            self.score.cycles = number
            taken = time.monotonic() - began
            self._say(f"{number}/{cycles} {cycle.fault.name}; {cycle.end}; {taken:.1f} s; {self._last}")
            if number % check_every == 0 and number < cycles:
                self.check()
        self.check()
        self.check_clean_stops()
        self._require_enough()
        return self.score

    def repeat(self, cycle: Cycle, times: int) -> None:
        """Repeat one cycle, with a check after every two.

        Raises:
            ChaosError: a document was lost, or the daemon did not recover.
        """
        for _ in range(times):
            self.cycle(cycle)
            self.cycle(cycle)
            self.check()

    def check_clean_stops(self) -> None:
        """Stop the daemon twice under load, and check that the next run writes nothing again."""
        for _ in range(2):
            self._start({}, gently=True)
            self.stage.wait_until_ready()
            self._wait(self.stage.is_writing)
            self._stop_calmly()

    # --- one cycle

    def cycle(self, cycle: Cycle) -> None:
        """Run the daemon once, with one fault and one end."""
        stage, end = self.stage, cycle.end
        course = cycle.fault.course(stage, self._random)
        environ = cast("Mapping[str, str]", next(course))
        # A power failure only makes a difference between a write or a rename and its fsync.
        place = "checkpoint-fsync" if end == "power" else end.removeprefix("at ") if " " in end else ""
        if place:
            environ = self._arm_failpoint(environ, place, forgetful=end == "power")
        self.score.drawn.update([cycle.fault.name, end])
        self._start(environ, forgetful=end == "power")
        stage.wait_until_ready()
        self._require_start()
        self._wait(stage.is_writing)
        gevent.sleep(0.5 * self._random.random())
        alive = stage.daemon.child.poll() is None
        next(course)
        if cycle.fault.on_line:
            self._wait(lambda: any(line.hits for line in stage.lines.values()))
        gevent.sleep(self._pace_seconds * (0.3 + 1.4 * self._random.random()))
        if place == "drain" and alive:
            stage.daemon.signal(signal.SIGTERM)
        if place:
            self._wait_for_death(UNDER_FAULT_SECONDS)
            fault_hit = next(course) is True
            stage.heal()
            hit = self._has_died(end)
        else:
            hit = self._end(end, calm=cycle.fault.name == "none")
            fault_hit = next(course) is True
            stage.heal()
        fault_hit = fault_hit and (alive or cycle.fault.at_start)
        self.score.hit.update({cycle.fault.name: int(fault_hit), end: int(hit)})
        self.plan.record(cycle, fault_hit=fault_hit, end_hit=hit)
        self._count_replays(cycle)
        self._last += "".join(
            f", {name} in vain" for name, done in ((cycle.fault.name, fault_hit), (end, hit)) if not done
        )

    def _start(self, environ: Mapping[str, str], *, forgetful: bool = False, gently: bool = False) -> None:
        stage = self.stage
        stage.log_from = stage.daemon.log.stat().st_size if stage.daemon.log.exists() else 0
        stage.start(environ, forgetful=forgetful)
        for line in stage.lines.values():
            line.hits = 0
        self._write(gently=gently)

    def _require_start(self) -> None:
        """Fail if the daemon refused its configuration: no fault explains that."""
        if self.stage.daemon.child.poll() == ExitCode.CONFIG:
            raise ChaosError(f"refused to start: {self.stage.daemon.log.read_text()[-2000:]}")

    def _write(self, *, gently: bool) -> None:
        """Let the writers write; gently, without purges.

        pillowd takes seconds to confirm a purge, and a stop does not wait for that.
        """
        for writer in self.stage.writers.values():
            writer.resume(purges=not gently)

    def _arm_failpoint(self, environ: Mapping[str, str], place: str, *, forgetful: bool) -> Mapping[str, str]:
        least, most = REACHED_BY_POWER if forgetful else (1, REACHED.get(place, REACHED_ELSE))
        mine = f"{place}:{self._random.randint(least, most)}"
        given = environ.get("PILLOWD_FAILPOINT")
        setting = f"{given},{mine}" if given else mine
        return {**environ, "PILLOWD_FAILPOINT": setting, "PILLOWD_TESTING": "1"}

    def _has_died(self, end: str) -> bool:
        """Return whether the daemon died at its failpoint; for "power", whether a write was undone."""
        died = self._wait_for_death(self._wait_seconds if end != "power" else 0.5)
        self._kill()
        if end != "power":
            return died
        undone = power_off(self.stage.undo_path)
        self.score.events["renames undone"] += undone
        return undone > 0

    def _wait_for_death(self, seconds: float) -> bool:
        child = self.stage.daemon.child
        self._wait(lambda: False, seconds)
        return bool(child.poll() == -signal.SIGKILL)

    def _wait(self, holds: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until a condition holds, the daemon has died, or the time is up."""
        child = self.stage.daemon.child
        until = time.monotonic() + (self._wait_seconds if seconds is None else seconds)
        while not holds() and child.poll() is None and time.monotonic() < until:
            gevent.sleep(0.02)

    def _end(self, end: str, *, calm: bool) -> bool:
        """End the daemon; return whether the end took effect."""
        daemon, child = self.stage.daemon, self.stage.daemon.child
        if child.poll() is not None:
            self.score.troubles.append(f"ended by itself with {child.returncode} before {end}")
            return False
        fault_hit = True
        if end == "stop":
            self._stop(calm=calm)
        elif end == "hang":
            fault_hit = freeze(daemon, self._random)
        elif end == "memory":
            fault_hit = starve(daemon, self._random, seconds=self._wait_seconds)
        self._kill()
        return fault_hit

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
        # A stop that runs out of time gives up, and says so by its exit code.
        if calm and code != 0 and taken < SHUTDOWN_SECONDS:
            self.score.troubles.append(f"a calm stop ended with {code}")

    def _stop_calmly(self) -> None:
        """Stop the daemon under load, without a fault."""
        self._write(gently=True)
        gevent.sleep(self._pace_seconds)
        self._stop(calm=True)
        self._count_replays()

    def _count_replays(self, cycle: Cycle | None = None) -> None:
        self._last = self._replays.count(self.stage.take_written(), cycle=cycle, stopped=self._stopped)
        self._stopped = False

    # --- checks

    def check(self) -> None:
        """Check that without faults all targets become equal, a new document arrives, and a stop is clean.

        Raises:
            ChaosError: one of these failed.
        """
        with self._limit_time("check"):
            began = time.monotonic()
            self._start({})
            self.check_recovery()
            self._stop_calmly()
            self.score.checks += 1
        taken, waited = time.monotonic() - began, self.score.recovery_seconds[-1]
        self._say(f"equal; {taken:.1f} s, {waited:.1f} of it waiting")

    def check_recovery(self) -> None:
        """Check that the running daemon makes all targets equal, and recovers from one more fault.

        Raises:
            ChaosError: it does not.
        """
        began = time.monotonic()
        for writer in self.stage.writers.values():
            writer.pause()
            writer.heal()
        verdict = self._wait_until_equal()
        self.score.recovery_seconds.append(time.monotonic() - began)
        self._collect()
        if verdict:
            self.score.verdict = verdict
            raise ChaosError(f"{verdict}; {self.stage.describe_states()}")
        self._probe()

    def _wait_until_equal(self) -> Verdict:
        """Wait until all targets are equal, or the differences stay the same for too long; return them."""
        before, since = Verdict().counts, time.monotonic()
        while True:
            if self.stage.daemon.child.poll() is not None:
                raise ChaosError(f"ended: {self.stage.daemon.log.read_text()[-2000:]}")
            said = self.stage.read_states()
            live, resting = said == {"live"}, bool(said) and said <= RESTING
            waited = time.monotonic() - since
            if resting or waited > self._recovery_seconds:
                verdict = self._judge()
                if live and not verdict:
                    return verdict
                if verdict.counts != before:
                    before, since = verdict.counts, time.monotonic()
                elif waited > (self._settled_seconds if resting else self._recovery_seconds):
                    if not verdict:
                        raise ChaosError(f"not live: {self.stage.describe_states()}")
                    return verdict
            gevent.sleep(0.3)

    def _judge(self) -> Verdict:
        whole = Verdict()
        try:
            held = self.stage.read_targets()
        except Exception as error:  # noqa: BLE001 - a table or an index does not exist yet
            whole.add(UNREADABLE, f"{type(error).__name__}: {error}")
            return whole
        for database, targets in held.items():
            verdict = judge(self.stage.writers[database].truth, targets)
            whole.counts += verdict.counts
            whole.examples += verdict.examples
        return whole

    def _probe(self) -> None:
        """Reset all connections, and check that the running daemon recovers without a restart."""
        stage = self.stage
        for line in stage.lines.values():
            line.reset()
        ids = {database: writer.write_one() for database, writer in stage.writers.items()}
        began = time.monotonic()
        while not stage.is_visible(ids):
            if time.monotonic() - began > self._probe_seconds:
                raise ChaosError(
                    f"no fresh write within {self._probe_seconds:g} s: {stage.describe_states()}"
                )
            gevent.sleep(0.1)
        self.score.probe_seconds.append(time.monotonic() - began)

    def _collect(self) -> None:
        score, stage = self.score, self.stage
        with stage.daemon.log.open(errors="replace") as log:  # a kill may leave half a line
            log.seek(stage.log_read)
            score.count_events(log.read())
            stage.log_read = log.tell()
        score.changes = sum(writer.sent for writer in stage.writers.values())
        score.documents = len(stage.writers["all"].truth.documents)

    # --- the run itself

    def _require_enough(self) -> None:
        score = self.score
        lacking = self.plan.find_lacking(score.hit) + score.find_lacking()
        if lacking and score.cycles >= FULL_CYCLES:
            raise ChaosError(f"not enough: {', '.join(lacking)}")
        if score.troubles:
            raise ChaosError(f"troubles: {score.troubles}")

    @contextmanager
    def _limit_time(self, what: object) -> Iterator[None]:
        hung = gevent.Timeout(self._hung_seconds)
        try:
            with hung:
                yield
        except gevent.Timeout as timeout:
            if timeout is not hung:
                raise
            print_run_info()
            raise ChaosError(f"hangs: {what}") from None
