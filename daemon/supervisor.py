"""Runs one greenlet per tail; what happens to one of them never touches another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

import structlog
from gevent.event import Event

from checkpoints import TailKey
from daemon.paused_pillows import Pauses
from daemon.restart_policy import RestartPolicy, Restarts
from daemon.supervised_tail import Runnable, Supervised
from pillows.clock import Clock
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus

#: How often the supervisor looks at its tails.
TICK_SECONDS = 1.0
#: A tick that comes this late means that something kept the hub from turning.
_LATE_SECONDS = 5.0

_log = structlog.get_logger("pillowd.supervisor")


class Supervisor:
    """Starts, watches and stops tails, each on its own and at any time.

    No method waits for a tail: each says what is wanted, and `tick`, called every `TICK_SECONDS`,
    takes the next step. All of them may be called again without effect.

    Args:
        factories: tail -> builds a fresh one.
        clock: for every duration and wait.
        observer: told of states.
        pauses: which tails the operator has paused; outlives the process.
        policy: when a tail is stuck, restarted, given up.
        stop_timeout_seconds: a tail that was told to stop is killed after this long.
        jitter: gives a number in [0, 1).
    """

    def __init__(
        self,
        factories: Mapping[TailKey, Callable[[], Runnable]],
        *,
        clock: Clock,
        observer: Observer,
        pauses: Pauses,
        policy: RestartPolicy | None = None,
        stop_timeout_seconds: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        policy = policy or RestartPolicy()
        self._clock = clock
        self._pauses = pauses
        self._ending = False
        self._ticked_at = self._awake_since = clock.monotonic()
        self._tails = {
            key: Supervised(
                key,
                factory,
                clock=clock,
                observer=observer,
                policy=policy,
                restarts=Restarts(policy, jitter),
                stop_timeout_seconds=stop_timeout_seconds,
            )
            for key, factory in factories.items()
        }

    @property
    def keys(self) -> list[TailKey]:
        """Every tail, running or not."""
        return list(self._tails)

    @property
    def running(self) -> list[TailKey]:
        """The tails that have a greenlet alive."""
        return [key for key, tail in self._tails.items() if tail.running]

    def start(self, key: TailKey) -> None:
        """Starts a tail; a paused one stays paused.

        Raises:
            KeyError: there is no such tail; so for all methods with a key.
        """
        tail = self._tails[key]
        if key in self._pauses:
            tail.rest(State.PAUSED)
        elif not self._ending:
            tail.start()

    def stop(self, key: TailKey) -> None:
        """Stops a tail after what it has in flight."""
        self._tails[key].rest(State.STOPPED)

    def pause(self, key: TailKey) -> None:
        """Stops a tail until `resume`, also over a restart of the daemon."""
        tail = self._tails[key]
        self._pauses.add(key)
        tail.rest(State.PAUSED)

    def resume(self, key: TailKey) -> None:
        """Ends a pause and starts the tail."""
        tail = self._tails[key]
        self._pauses.discard(key)
        if not self._ending:
            tail.start()

    def restart(self, key: TailKey) -> None:
        """Stops a tail and starts it afresh; one that rests because it was told to, rests on."""
        if not self._ending:
            self._tails[key].restart()

    def start_all(self) -> None:
        """Starts every tail that is not paused."""
        for key in self._tails:
            self.start(key)

    def stop_all(self) -> None:
        """Asks all tails to stop, at once and side by side; from now on none is started."""
        self._ending = True
        for tail in self._tails.values():
            tail.finish()

    def kill_all(self, reason: str) -> None:
        """Kills the tails that are still running."""
        for tail in self._tails.values():
            tail.kill(reason)

    @property
    def cut(self) -> list[TailKey]:
        """The tails that had to be killed after `stop_all`."""
        return [key for key, tail in self._tails.items() if tail.cut]

    def statuses(self) -> list[TailStatus]:
        """The facts of every tail now."""
        return [tail.status() for tail in self._tails.values()]

    def status(self, key: TailKey) -> TailStatus:
        """The facts of one tail now."""
        return self._tails[key].status()

    def tick(self) -> None:
        """Takes the next step for every tail."""
        now = self._clock.monotonic()
        late_seconds = now - self._ticked_at - TICK_SECONDS
        if late_seconds > _LATE_SECONDS:
            _log.warning("hub.blocked", seconds=round(late_seconds, 1))
            self._awake_since = now
        self._ticked_at = now
        for tail in self._tails.values():
            tail.tick(awake_since=self._awake_since)

    def run(self, stop: Event, *, each_tick: Iterable[Callable[[], None]] = ()) -> None:
        """Ticks until `stop` is set. Waits with a timeout: see `daemon.signals`.

        Args:
            stop: ends it.
            each_tick: called after every tick.
        """
        while not self._clock.wait(stop, TICK_SECONDS):
            self.tick()
            for call in each_tick:
                call()
