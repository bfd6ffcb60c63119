"""One tail under supervision: start, watch, stop, and restart it when it crashed or hung."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import gevent
import structlog
from gevent.event import Event
from greenlet import GreenletExit
from msgspec.structs import replace

from checkpoints import CheckpointMoved, TailKey
from daemon.config.models import RestartOptions
from daemon.supervision.restart_policy import ACCESS_RETRY_SECONDS, STUCK_SECONDS, Restarts
from daemon.supervision.stacks import Run, format_family, mark_family
from daemon.tail_lookup import name_tail
from pillows.clock import Clock
from pillows.errors import AccessError, FatalError
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus
from pillows.user_code import describe_error


class Runnable(Protocol):
    """The part of a tail that the supervisor uses."""

    @property
    def ticked_at(self) -> float:
        """Monotonic seconds of the last sign of life; at most 5 s ago in a healthy tail."""

    @property
    def state(self) -> State:
        """The state; to read it costs much less than `status`."""

    def run(self, stop: Event) -> None:
        """Run until `stop` is set, then drain."""

    def status(self) -> TailStatus:
        """Return the current status."""


@runtime_checkable
class SeveralDatabases(Runnable, Protocol):
    """The part of a tail on several databases that operators use."""

    def __contains__(self, name: str) -> bool:
        """Return whether a database is known."""

    def list_databases(self) -> Iterator[tuple[str, Any]]:
        """Yield every known database with its name."""

    def status_of(self, name: str) -> TailStatus:
        """Return the facts of one database."""

    def pause(self, name: str) -> None:
        """Give a database no more turns."""

    def resume(self, name: str) -> None:
        """Give a database its turn soon, whatever held it back."""

    def note_edit(self, name: str) -> None:
        """Note that a database's checkpoint was edited."""

    def repair(self, name: str, ids: Sequence[str]) -> None:
        """Send documents of a database through the pipeline again."""

    def is_active(self, name: str) -> bool:
        """Return whether a turn of a database runs."""


#: Builds a fresh tail for each run, so that nothing of a crashed one is left.
TailFactory = Callable[[], Runnable]


class SupervisedTail:
    """Keeps one tail running, or holds it in a state that the operator wants.

    No method waits: `tick` checks the greenlet and decides the next step. A tail never has more than
    one greenlet: the next starts only when the last is dead.

    Args:
        key: the tail.
        factory: builds a fresh tail for each run.
        clock: for every duration.
        observer: receives the states decided here; a running tail reports its own.
        policy: when to restart and when to give up.
        jitter: returns a number in [0, 1), for the delay before a restart.
        stop_timeout_seconds: a tail that was asked to stop is killed after this time.

    Attributes:
        key: the tail.
        factory: may be replaced; the next run uses it.
        killed_on_shutdown: whether it had to be killed after `shutdown`.
    """

    def __init__(
        self,
        key: TailKey,
        factory: TailFactory,
        *,
        clock: Clock,
        observer: Observer,
        policy: RestartOptions,
        jitter: Callable[[], float],
        stop_timeout_seconds: float,
    ) -> None:
        self.key = key
        self.factory = factory
        self.killed_on_shutdown = False
        self._clock = clock
        self._observer = observer
        self._policy = policy
        self._restarts = Restarts(policy, jitter)
        self._stop_timeout_seconds = stop_timeout_seconds
        self._predecessors: list[Run] = []
        self._log = structlog.get_logger("pillowd.supervisor", pillow=str(key))
        self._held_state: State | None = State.STOPPED
        self._state = State.STOPPED
        self._reason = ""
        self._greenlet: Run | None = None
        self._tail: Runnable | None = None
        self._stop = Event()
        self._started_at = 0.0
        self._stop_by = 0.0
        self._kill_reason = ""
        self._start_at: float | None = None
        self._start_again = False
        self._cached = TailStatus(pillow=key.pillow, source=key.source, state=State.STOPPED)
        self._cached_at = self._up_to_date_at = clock.monotonic()

    @property
    def running(self) -> bool:
        """Whether a greenlet of this tail is alive."""
        return self.run is not None

    @property
    def run(self) -> Run | None:
        """The present run; None if there is none, or it has ended."""
        return None if self._greenlet is None or self._greenlet.dead else self._greenlet

    @property
    def databases(self) -> SeveralDatabases | None:
        """The running tail, if it reads several databases."""
        return self._tail if isinstance(self._tail, SeveralDatabases) else None

    @property
    def is_paused(self) -> bool:
        """Whether the tail is held as paused, or drains for that."""
        return self._held_state is State.PAUSED

    @property
    def draining(self) -> bool:
        """Whether the present run was asked to stop, and has not ended."""
        return self.running and self._stop.is_set()

    def wait_for(self, runs: Iterable[Run]) -> None:
        """Begin the next run only after these runs, of other tails, have ended."""
        self._predecessors += runs

    def set_limits(self, policy: RestartOptions, stop_timeout_seconds: float) -> None:
        """Use other limits from now on; see the class."""
        self._policy = policy
        self._restarts.set_policy(policy)
        self._stop_timeout_seconds = stop_timeout_seconds

    def start(self) -> None:
        """Start the tail unless it is running. A failed tail is started again."""
        if self._held_state is None and self._state is not State.FAILED:
            return
        self._held_state = None
        self._restarts.forget()
        if self._greenlet is None:
            self._spawn()
        else:
            self._start_again = True

    def stop_and_hold(self, state: State) -> None:
        """Drain the tail, and hold it in `state` until `start`."""
        self._held_state = state
        self._start_again = False
        self._start_at = None
        if self._greenlet is None:
            self._set_state(state)
        else:
            self._ask_to_stop()

    def shutdown(self) -> None:
        """Drain the tail because the daemon ends. A failed or paused one keeps its state."""
        self._start_at = None
        self.killed_on_shutdown = False
        if self._greenlet is not None or self._state is State.BACKING_OFF:
            self.stop_and_hold(State.STOPPED)

    def restart(self) -> None:
        """Drain the tail and start it again; forget earlier crashes. A held tail stays held."""
        if self._held_state is not None:
            return
        self._restarts.forget()
        if self._greenlet is None:
            self._spawn()
        else:
            self._start_again = True
            self._ask_to_stop()

    def tick(self, *, awake_since: float) -> None:
        """Take the next step.

        Args:
            awake_since: monotonic seconds when the hub last ran again after it had been blocked.
                Silence before that does not count: no tail could give a sign of life.
        """
        now = self._clock.monotonic()
        if self._greenlet is None:
            if self._start_at is not None and now >= self._start_at:
                self._spawn()
        elif self._greenlet.dead:
            self._on_end(self._greenlet.value, now)
        elif self._kill_reason or (self._stop.is_set() and now >= self._stop_by):
            self.kill("it did not stop in time")
        elif not self._stop.is_set():
            self._kill_if_stuck(now, awake_since)

    def kill(self, reason: str) -> None:
        """Kill the greenlet, if there is one. A later `tick` finds it dead."""
        if self._greenlet is None or self._greenlet.dead:
            return
        if not self._kill_reason:
            self._kill_reason = reason
            self.killed_on_shutdown = True
            self._log.error("pillow.killed", reason=reason, stack=format_family(self._greenlet))
        self._greenlet.kill(block=False)

    @property
    def state(self) -> State:
        """The state alone, without what `status` computes."""
        if self._tail is None:
            return self._state
        return State.BACKING_OFF if self._kill_reason else self._tail.state

    def status(self) -> TailStatus:
        """Return the status of the running tail, else the last known one."""
        if self._tail is not None:  # also one that has ended, until the next tick
            status = self._complete(self._ask_status(self._tail))
            if self._kill_reason:
                return replace(status, state=State.BACKING_OFF, reason=f"being killed: {self._kill_reason}")
            return status
        elapsed_seconds = self._clock.monotonic() - self._cached_at
        return replace(
            self._complete(self._cached),
            state=self._state,
            reason=self._reason,
            pending=None,
            changes_per_second=None,
            seconds_to_go=None,
            last_byte_age_seconds=_later(self._cached.last_byte_age_seconds, elapsed_seconds),
            checkpoint_age_seconds=_later(self._cached.checkpoint_age_seconds, elapsed_seconds),
        )

    def _complete(self, status: TailStatus) -> TailStatus:
        """Complete a status by what outlives a run: the restarts, and when the tail was last up to date."""
        # At the head that is 0, not the microseconds since the tail was asked: they would count as a change.
        lag_seconds = round(self._clock.monotonic() - self._up_to_date_at, 3)
        return replace(status, restarts=self._restarts.total, lag_seconds=lag_seconds)

    def _spawn(self) -> None:
        self._start_again = False
        self._predecessors = [run for run in self._predecessors if not run.dead]
        if self._predecessors:
            self._start_at = self._clock.monotonic()
            self._set_state(State.STARTING, "waits until the pillow that wrote its outputs has stopped")
            return
        self._start_at = None
        self._kill_reason = ""
        self._stop = Event()
        self._started_at = self._clock.monotonic()
        self._set_state(State.STARTING)
        # The factory of now: another one may stand here before the greenlet gets its first turn.
        self._greenlet = gevent.Greenlet(self._run, self.factory, self._stop)
        # Greenlets that the tail spawns inherit this mapping, which is how their stacks are found.
        mark_family(self._greenlet, self.key)
        self._greenlet.start()

    def _run(self, factory: TailFactory, stop: Event) -> BaseException | None:
        try:
            self._tail = factory()
            self._tail.run(stop)
        except BaseException as error:  # noqa: BLE001  a transform's sys.exit() must not end the daemon
            return error
        return None

    def _ask_to_stop(self) -> None:
        if not self._stop.is_set():
            self._stop_by = self._clock.monotonic() + self._stop_timeout_seconds
            self._stop.set()

    def _kill_if_stuck(self, now: float, awake_since: float) -> None:
        ticked_at = self._tail.ticked_at if self._tail is not None else self._started_at
        silent_seconds = now - max(ticked_at, self._started_at, awake_since)
        if silent_seconds > STUCK_SECONDS:
            self.kill(f"no sign of life for {silent_seconds:.0f} s")

    def _on_end(self, error: BaseException | None, now: float) -> None:
        self._cache_status()
        self._greenlet = self._tail = None
        if error is not None and not isinstance(error, GreenletExit):
            self._log_error(error)
        if self._held_state is not None:
            self._set_state(self._held_state)
        elif self._start_again or isinstance(error, CheckpointMoved):
            self._spawn()
        elif isinstance(error, FatalError):
            self._set_state(State.FAILED, name_tail(str(error), self.key))
            if isinstance(error, AccessError):
                self._start_at = now + ACCESS_RETRY_SECONDS
        else:
            self._on_crash(self._kill_reason or _summary(error), now)

    def _on_crash(self, reason: str, now: float) -> None:
        delay = self._restarts.crashed(now=now, ran_seconds=now - self._started_at)
        if delay is None:
            self._set_state(
                State.FAILED,
                f"restarted too often ({self._policy.max_restarts} times), last because: {reason}. "
                f"Remedy: see the log, then `pillowd restart {self.key}`",
            )
        else:
            self._start_at = now + delay
            self._set_state(State.BACKING_OFF, f"restart in {delay:.1f} s: {reason}")

    def _set_state(self, state: State, reason: str = "") -> None:
        if (self._state, self._reason) != (state, reason):
            self._state, self._reason = state, reason
            self._observer.state(self.key, state=state, reason=reason)

    def _log_error(self, error: BaseException) -> None:
        if isinstance(error, CheckpointMoved):
            self._log.info("pillow.moved", reason=str(error))
        elif isinstance(error, FatalError):
            if self._held_state is not None:  # else the state `failed` says it
                self._log.error("pillow.stop_failed", reason=name_tail(str(error), self.key))
        else:
            stack = traceback.format_tb(error.__traceback__)
            self._log.error("pillow.crashed", reason=_summary(error), stack="".join(stack))

    def _cache_status(self) -> None:
        if self._tail is not None:
            self._cached = self._ask_status(self._tail)
            self._cached_at = self._clock.monotonic()
            self._state, self._reason = self._cached.state, self._cached.reason

    def _ask_status(self, tail: Runnable) -> TailStatus:
        try:
            status = tail.status()
        except Exception as error:  # noqa: BLE001  one tail's status must not end the supervisor
            self._log.warning("pillow.status_unknown", reason=_summary(error))
            return replace(self._cached, state=self._state, reason=f"no status: {_summary(error)}")
        if status.lag_seconds is not None:
            self._up_to_date_at = self._clock.monotonic() - status.lag_seconds
        return status


def _summary(error: BaseException | None) -> str:
    """Return an error as one bounded line: a user's code and client libraries quote whole documents."""
    if error is None:
        return "it ended without being asked to"
    return describe_error(error).partition("\n")[0]


def _later(age_seconds: float | None, elapsed_seconds: float) -> float | None:
    return None if age_seconds is None else age_seconds + elapsed_seconds
