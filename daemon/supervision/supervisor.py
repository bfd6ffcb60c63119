"""The supervisor: one greenlet per tail, and no tail can harm another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import structlog
from gevent.event import Event

from checkpoints import TailKey
from daemon.config.models import RestartOptions
from daemon.supervision.paused_pillows import PausedTails
from daemon.supervision.stacks import Run
from daemon.supervision.supervised_tail import SeveralDatabases, SupervisedTail, TailFactory
from pillows.clock import Clock
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus

#: How often the supervisor checks its tails.
TICK_SECONDS = 1.0
#: A tick this late means that something blocked the hub.
_LATE_SECONDS = 5.0

_log = structlog.get_logger("pillowd.supervisor")


class Supervisor:
    """Starts, watches, replaces and stops tails, each on its own and at any time.

    No method waits for a tail: each records the wanted state, and `tick`, called every `TICK_SECONDS`,
    takes the next step. Repeating a call has no effect.

    Args:
        factories: tails to add, and what builds a fresh one of each.
        clock: for every duration and wait.
        observer: receives the states of tails.
        pauses: which tails the operator has paused; outlives the process.
        policy: when a tail is stuck, restarted, failed.
        stop_timeout_seconds: a tail that was asked to stop is killed after this time.
        jitter: returns a number in [0, 1).
    """

    def __init__(
        self,
        factories: Mapping[TailKey, TailFactory],
        *,
        clock: Clock,
        observer: Observer,
        pauses: PausedTails,
        policy: RestartOptions | None = None,
        stop_timeout_seconds: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._pauses = pauses
        self._ending = False
        self._ticked_at = self._awake_since = clock.monotonic()
        self._tails: dict[TailKey, SupervisedTail] = {}
        self._removed: dict[TailKey, SupervisedTail] = {}
        self._held: set[TailKey] = set()
        self._policy = policy or RestartOptions()
        self._stop_timeout_seconds = stop_timeout_seconds
        self._supervise = partial(SupervisedTail, clock=clock, observer=observer, jitter=jitter)
        for key, factory in factories.items():
            self.add(key, factory)

    def add(self, key: TailKey, factory: TailFactory, *, after: Iterable[Run] = ()) -> None:
        """Add a tail; `start` starts it.

        Args:
            key: the tail.
            factory: builds a fresh tail for each run.
            after: runs of other tails that must end before the first of this one.

        Raises:
            ValueError: the tail is there already, or was removed and has not stopped yet.
        """
        if key in self._tails or key in self._removed:
            raise ValueError(f"{key} is supervised already, or still stopping")
        self._tails[key] = self._supervise(
            key, factory, policy=self._policy, stop_timeout_seconds=self._stop_timeout_seconds
        )
        self._tails[key].wait_for(after)
        if key in self._held:
            self._tails[key].stop_and_hold(State.STOPPED)

    def replace(self, key: TailKey, factory: TailFactory, *, after: Iterable[Run] = ()) -> None:
        """Use another factory from now on: a running tail drains, and the next one is built by it.

        A failed tail starts again; a paused or stopped one stays so.

        Args:
            key: the tail.
            factory: builds a fresh tail for each run.
            after: runs of other tails that must end before the next of this one.

        Raises:
            KeyError: there is no such tail.
        """
        self._tails[key].factory = factory
        self._tails[key].wait_for(after)
        self.restart(key)

    def set_limits(self, policy: RestartOptions, stop_timeout_seconds: float) -> None:
        """Use other limits from now on, for every tail; see the class."""
        self._policy, self._stop_timeout_seconds = policy, stop_timeout_seconds
        for _, tail in self._all():
            tail.set_limits(policy, stop_timeout_seconds)

    def remove(self, key: TailKey) -> None:
        """Forget a tail. A running one drains first; until then it counts as `running`.

        Raises:
            KeyError: there is no such tail.
        """
        tail = self._tails.pop(key)
        tail.stop_and_hold(State.STOPPED)
        tail.tick(awake_since=self._awake_since)  # logs the error of a run that has just ended
        if tail.running:
            self._removed[key] = tail
        else:
            self._observer.removed(key)

    @property
    def ticked_at(self) -> float:
        """Monotonic seconds of the last tick."""
        return self._ticked_at

    @property
    def ending(self) -> bool:
        """Whether `stop_all` was called."""
        return self._ending

    @property
    def keys(self) -> list[TailKey]:
        """All tails, running or not."""
        return list(self._tails)

    @property
    def running(self) -> list[TailKey]:
        """The tails with a live greenlet."""
        return list(self.runs)

    @property
    def runs(self) -> Mapping[TailKey, Run]:
        """The present run of each tail that has one, also of one that was removed and still drains."""
        return {key: tail.run for key, tail in self._all() if tail.run is not None}

    def start(self, key: TailKey) -> None:
        """Start a tail; a paused one stays paused.

        Raises:
            KeyError: there is no such tail. All methods with a key raise it.
        """
        tail = self._tails[key]
        if key in self._pauses:
            tail.stop_and_hold(State.PAUSED)
        elif not self._ending and key not in self._held:
            tail.start()

    def hold(self, key: TailKey) -> None:
        """Drain a tail, and keep it stopped until `release`, whatever is asked for meanwhile.

        A tail that is not there does not start when it is added.
        """
        self._held.add(key)
        if key in self._tails:
            self._tails[key].stop_and_hold(State.STOPPED)

    def release(self, key: TailKey) -> None:
        """End a hold, and start the tail if it is still there."""
        self._held.discard(key)
        if key in self._tails:
            self.start(key)

    def stop(self, key: TailKey) -> None:
        """Drain a tail, and keep it stopped."""
        self._tails[key].stop_and_hold(State.STOPPED)

    def pause(self, key: TailKey) -> None:
        """Drain a tail, and keep it stopped until `resume`, even when the daemon restarts."""
        tail = self._tails[key]
        self._pauses.add(key)
        tail.stop_and_hold(State.PAUSED)

    def resume(self, key: TailKey) -> None:
        """End a pause and start the tail."""
        tail = self._tails[key]
        self._pauses.discard(key)
        if not self._ending and key not in self._held:
            tail.start()

    def follow_pauses(self) -> None:
        """Drain or start the tails whose pause was changed elsewhere."""
        for key, tail in list(self._tails.items()):
            if (key in self._pauses) is not tail.is_paused:
                self.start(key)

    def restart(self, key: TailKey) -> None:
        """Drain a tail and start it again; a paused or stopped one stays so."""
        if not self._ending:
            self._tails[key].restart()

    def start_all(self) -> None:
        """Start every tail that is not paused."""
        for key in self._tails:
            self.start(key)

    def stop_all(self) -> None:
        """Ask all tails to stop, all at once; from now on none is started."""
        self._ending = True
        for _, tail in self._all():
            tail.shutdown()

    def kill(self, key: TailKey, reason: str) -> None:
        """Kill a tail that runs, also one that was removed and still drains."""
        for known, tail in self._all():
            if known == key:
                tail.kill(reason)

    def kill_all(self, reason: str) -> None:
        """Kill the tails that are still running."""
        for _, tail in self._all():
            tail.kill(reason)

    @property
    def killed_on_shutdown(self) -> list[TailKey]:
        """The tails that had to be killed after `stop_all`."""
        return [key for key, tail in self._all() if tail.killed_on_shutdown]

    def states(self) -> list[State]:
        """Return the state of every tail."""
        return [tail.state for tail in self._tails.values()]

    def statuses(self) -> list[TailStatus]:
        """Return the status of every tail."""
        return [tail.status() for tail in self._tails.values()]

    def status(self, key: TailKey) -> TailStatus:
        """Return the status of one tail."""
        return self._tails[key].status()

    def find_databases(self, key: TailKey) -> SeveralDatabases | None:
        """Return the running tail of a key if it reads several databases; else None."""
        return self._tails[key].databases if key in self._tails else None

    def is_draining(self, key: TailKey) -> bool:
        """Return whether a run of the tail was asked to stop, and has not ended."""
        return self._tails[key].draining

    def tick(self) -> None:
        """Take the next step for every tail."""
        now = self._clock.monotonic()
        late_seconds = now - self._ticked_at - TICK_SECONDS
        if late_seconds > _LATE_SECONDS:
            _log.warning("hub.blocked", seconds=round(late_seconds, 1))
            self._awake_since = now
        self._ticked_at = now
        for key, tail in self._all():
            tail.tick(awake_since=self._awake_since)
            # A shutdown still asks whether it was killed.
            if key in self._removed and not tail.running and not self._ending:
                del self._removed[key]
                self._observer.removed(key)

    def _all(self) -> list[tuple[TailKey, SupervisedTail]]:
        return [*self._tails.items(), *self._removed.items()]

    def run(
        self,
        stop: Event,
        *,
        each_tick: Iterable[Callable[[], None]] = (),
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        """Tick until `stop` is set. Wait with a timeout: see `daemon.process.signals`.

        Args:
            stop: ends the loop.
            each_tick: called after every tick.
            tick_seconds: between two ticks, `TICK_SECONDS` at most.
        """
        while not self._clock.wait(stop, tick_seconds):
            self.tick()
            for call in each_tick:
                call()
