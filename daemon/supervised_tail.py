"""One tail's life: started, watched, stopped, and started again when it crashed or hung."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import gevent
import structlog
from gevent.event import Event
from greenlet import GreenletExit

from checkpoints import CheckpointMoved, TailKey
from daemon.restart_policy import RestartPolicy, Restarts
from pillows.clock import Clock
from pillows.errors import AccessError, FatalError
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus

_log = structlog.get_logger("pillowd.supervisor")


class Runnable(Protocol):
    """What the supervisor needs of a tail."""

    @property
    def ticked_at(self) -> float:
        """Monotonic seconds of the last sign of life; at most 5 s ago while it is well."""

    def run(self, stop: Event) -> None:
        """Runs until `stop` is set and everything in flight is finished."""

    def status(self) -> TailStatus:
        """Its facts now."""


class Supervised:
    """Keeps one tail running, or resting where the operator wants that.

    Nothing here waits: `tick` looks at the greenlet and decides the next step. There is never more
    than one greenlet of a tail: a new one starts when the old one is dead, and not before.

    Args:
        key: the tail.
        factory: builds a fresh tail for each run, so that nothing of a crashed one is left.
        clock: for every duration.
        observer: told of the states that are decided here; a running tail tells its own.
        policy: when to restart and when to give up.
        restarts: counts them.
        stop_timeout_seconds: a tail that was told to stop is killed after this long.

    Attributes:
        cut: whether it had to be killed after `finish` was asked.
    """

    def __init__(
        self,
        key: TailKey,
        factory: Callable[[], Runnable],
        *,
        clock: Clock,
        observer: Observer,
        policy: RestartPolicy,
        restarts: Restarts,
        stop_timeout_seconds: float,
    ) -> None:
        self.key = key
        self.cut = False
        self._factory = factory
        self._clock = clock
        self._observer = observer
        self._policy = policy
        self._restarts = restarts
        self._stop_timeout_seconds = stop_timeout_seconds
        self._log = _log.bind(pillow=str(key))
        self._rest: State | None = State.STOPPED
        self._state = State.STOPPED
        self._reason = ""
        self._greenlet: gevent.Greenlet[..., BaseException | None] | None = None
        self._tail: Runnable | None = None
        self._stop = Event()
        self._alive_at = 0.0
        self._started_at = 0.0
        self._stop_by = 0.0
        self._kill_reason = ""
        self._start_at: float | None = None
        self._again = False
        self._last = TailStatus(pillow=key.pillow, source=key.source, state=State.STOPPED)
        self._last_at = clock.monotonic()

    @property
    def running(self) -> bool:
        """Whether a greenlet of this tail is alive."""
        return self._greenlet is not None and not self._greenlet.dead

    def start(self) -> None:
        """Wants it to run. Nothing happens if it does; one that has failed starts afresh."""
        if self._rest is None and self._state is not State.FAILED:
            return
        self._rest = None
        self._restarts.forget()
        if self._greenlet is None:
            self._spawn()
        else:
            self._again = True

    def rest(self, state: State) -> None:
        """Wants it to stop, with everything in flight finished, and to rest in `state`."""
        self._rest = state
        self._again = False
        self._start_at = None
        if self._greenlet is None:
            self._settle(state)
        else:
            self._ask_to_stop()

    def finish(self) -> None:
        """The daemon ends: as `rest`, but one that has failed or is paused keeps saying so."""
        self._start_at = None
        self.cut = False
        if self._greenlet is not None or self._state is State.BACKING_OFF:
            self.rest(State.STOPPED)

    def restart(self) -> None:
        """Wants a fresh run: stops it and starts it again, with earlier crashes forgotten."""
        if self._rest is not None:
            return
        self._restarts.forget()
        if self._greenlet is None:
            self._spawn()
        else:
            self._again = True
            self._ask_to_stop()

    def tick(self, *, awake_since: float) -> None:
        """Decides the next step.

        Args:
            awake_since: monotonic seconds when the hub last came back after it had been blocked.
                Before that nobody could give a sign of life, so nobody is blamed for silence.
        """
        now = self._clock.monotonic()
        if self._greenlet is None:
            if self._start_at is not None and now >= self._start_at:
                self._spawn()
        elif self._greenlet.dead:
            self._ended(self._greenlet.value, now)
        elif self._kill_reason or (self._stop.is_set() and now >= self._stop_by):
            self.kill("it did not stop in time")
        elif not self._stop.is_set():
            self._look_for_life(now, awake_since)

    def kill(self, reason: str) -> None:
        """Kills the greenlet, if there is one. It is over when a later `tick` finds it dead."""
        if self._greenlet is None or self._greenlet.dead:
            return
        if not self._kill_reason:
            self._kill_reason = reason
            self.cut = True
            self._log.error("pillow.killed", reason=reason, stack=_stacks(self._greenlet))
        self._greenlet.kill(block=False)

    def status(self) -> TailStatus:
        """The tail's own facts while it runs, else what is known of it."""
        if self._tail is not None and self.running:
            status = replace(self._ask(self._tail), restarts=self._restarts.total)
            if self._kill_reason:
                return replace(status, state=State.BACKING_OFF, reason=f"being killed: {self._kill_reason}")
            return status
        elapsed_seconds = self._clock.monotonic() - self._last_at
        return replace(
            self._last,
            state=self._state,
            reason=self._reason,
            restarts=self._restarts.total,
            pending=None,
            last_byte_age_seconds=_later(self._last.last_byte_age_seconds, elapsed_seconds),
            checkpoint_age_seconds=_later(self._last.checkpoint_age_seconds, elapsed_seconds),
        )

    def _spawn(self) -> None:
        self._start_at = None
        self._again = False
        self._kill_reason = ""
        self._stop = Event()
        self._started_at = self._clock.monotonic()
        self._state, self._reason = State.STARTING, ""
        self._greenlet = gevent.Greenlet(self._run, self._stop)
        # Greenlets that the tail spawns inherit this mapping, which is how their stacks are found.
        self._greenlet.spawn_tree_locals = {"pillow": str(self.key)}
        self._greenlet.start()

    def _run(self, stop: Event) -> BaseException | None:
        try:
            self._tail = self._factory()
            self._tail.run(stop)
        except BaseException as error:  # noqa: BLE001  a transform's sys.exit() must not end the daemon
            return error
        return None

    def _ask_to_stop(self) -> None:
        if not self._stop.is_set():
            self._stop_by = self._clock.monotonic() + self._stop_timeout_seconds
            self._stop.set()

    def _look_for_life(self, now: float, awake_since: float) -> None:
        ticked_at = self._tail.ticked_at if self._tail is not None else self._started_at
        silent_seconds = now - max(ticked_at, self._started_at, awake_since)
        if silent_seconds > self._policy.stuck_seconds:
            self.kill(f"no sign of life for {silent_seconds:.0f} s")

    def _ended(self, error: BaseException | None, now: float) -> None:
        self._remember()
        self._greenlet = self._tail = None
        if error is not None and not isinstance(error, GreenletExit):
            self._tell(error)
        if self._rest is not None:
            self._settle(self._rest)
        elif self._again or isinstance(error, CheckpointMoved):
            self._spawn()
        elif isinstance(error, FatalError):
            self._settle(State.FAILED, str(error))
            if isinstance(error, AccessError):
                self._start_at = now + self._policy.access_retry_seconds
        else:
            self._crashed(self._kill_reason or _summary(error), now)

    def _crashed(self, reason: str, now: float) -> None:
        delay = self._restarts.crashed(now=now, ran_seconds=now - self._started_at)
        if delay is None:
            self._settle(
                State.FAILED,
                f"restarted too often ({self._policy.max_restarts} times), last because: {reason}. "
                f"Remedy: see the log, then `pillowd restart {self.key}`",
            )
        else:
            self._start_at = now + delay
            self._settle(State.BACKING_OFF, f"restart in {delay:.1f} s: {reason}")

    def _settle(self, state: State, reason: str = "") -> None:
        if (self._state, self._reason) != (state, reason):
            self._state, self._reason = state, reason
            self._observer.state(str(self.key), state=state, reason=reason)

    def _tell(self, error: BaseException) -> None:
        if isinstance(error, CheckpointMoved):
            self._log.info("pillow.moved", reason=str(error))
        elif isinstance(error, FatalError):
            if self._rest is not None:  # else the state `failed` says it
                self._log.error("pillow.stop_failed", reason=str(error))
        else:
            stack = traceback.format_tb(error.__traceback__)
            self._log.error("pillow.crashed", reason=_summary(error), stack="".join(stack))

    def _remember(self) -> None:
        if self._tail is not None:
            self._last = self._ask(self._tail)
            self._last_at = self._clock.monotonic()
            self._state, self._reason = self._last.state, self._last.reason

    def _ask(self, tail: Runnable) -> TailStatus:
        try:
            return tail.status()
        except Exception as error:  # noqa: BLE001  a look at one tail must not end the supervisor
            self._log.warning("pillow.status_unknown", reason=_summary(error))
            return replace(self._last, state=self._state, reason=f"no status: {_summary(error)}")


def _summary(error: BaseException | None) -> str:
    """An error in one bounded line: exceptions of client libraries can quote whole documents."""
    if error is None:
        return "it ended without being asked to"
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line[:300]}" if first_line else type(error).__name__


def _stacks(root: gevent.Greenlet[..., BaseException | None]) -> str:
    """Where a tail's greenlets stand: its own, then those that it spawned."""
    family = [
        greenlet
        for greenlet in gc.get_objects()
        if isinstance(greenlet, gevent.Greenlet)
        and greenlet is not root
        and greenlet.spawn_tree_locals is root.spawn_tree_locals
    ]
    return "\n".join(
        f"{greenlet!r}\n{''.join(traceback.format_stack(greenlet.gr_frame))}"
        for greenlet in [root, *family]
        if greenlet.gr_frame is not None
    )


def _later(age_seconds: float | None, elapsed_seconds: float) -> float | None:
    return None if age_seconds is None else age_seconds + elapsed_seconds
