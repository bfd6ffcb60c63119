"""The daemon: open the state directory, run the pillows, answer the command, drain."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import version

import structlog
from gevent.event import Event

from checkpoints import StoreLocked
from daemon.config.models import Config
from daemon.coordination.coordinator import Grant, make_coordinator
from daemon.logs.setup import Logs
from daemon.parts import Parts, Surroundings, open_parts
from daemon.process.malloc_trim import Trimmer
from daemon.process.signals import Signals
from daemon.process.systemd import Notifier
from daemon.reload.source import ConfigSource
from daemon.serving import serve
from daemon.state_dir import StateDir, open_state_dir
from daemon.supervision.supervisor import TICK_SECONDS, Supervisor
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

#: How long the start waits for a command that briefly holds the state directory.
_LOCK_SECONDS = 5.0
#: Time between two ticks if somebody watches: `mirror --once` ends with the tick that sees it caught up.
_WATCHED_TICK_SECONDS = 0.1
#: How often a drain is checked.
_DRAIN_STEP_SECONDS = 0.1
#: How long killed pillows may take to close their files and connections.
_KILL_SECONDS = 1.0
#: Time that the service manager is asked to allow in addition to the drain.
_SPARE_SECONDS = 10.0
_log = structlog.get_logger("pillowd.daemon")


class Daemon:
    """One run of the daemon.

    Args:
        config: a valid configuration.
        source: where it was read from, and will be again; holds the environment.
        clock: for every duration and wait.
        signals: the signals received.
        logs: the log, flushed with every tick.
        watch: receives the status of all tails with every tick.
    """

    def __init__(
        self,
        config: Config,
        *,
        source: ConfigSource,
        clock: Clock,
        signals: Signals,
        logs: Logs,
        watch: Callable[[Sequence[TailStatus]], None] | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._clock = clock
        self._signals = signals
        self._logs = logs
        self._watch = watch
        self._notifier = Notifier(source.environ, clock)
        self._trimmer = Trimmer()
        self._is_standby = False
        self._is_lost = False

    def run(self) -> int:
        """Run until a signal asks to stop.

        Returns:
            The exit code: 0 when all pillows drained, or it was stopped as a standby; 1 when one had to be
            killed, or the lease was lost.

        Raises:
            StoreLocked: another process holds the state directory, or answers on the admin socket.
            ConfigError: a Python path of the configuration cannot be imported.
            StoreError, OSError: the state directory cannot be used.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self._notifier))
            coordinator = stack.enter_context(closing(make_coordinator(self._config)))
            grant = coordinator.acquire(self._signals.stop, self._stand_by)
            if grant is None:
                return 0
            self._notifier.status("opening the state directory")
            state = self._take_state(stack, grant)
            around = Surroundings(
                clock=self._clock, logs=self._logs, notifier=self._notifier, stop=self._signals.stop
            )
            parts = open_parts(stack, state, self._config, self._source, around)
            serve(stack, parts, around)
            supervisor = parts.supervisor
            coordinator.watch(partial(self._lose, parts))
            if parts.rebuilder is not None:
                parts.rebuilder.recover()
            supervisor.start_all()
            self._notifier.ready()
            _log.info(
                "daemon.started", pid=os.getpid(), version=version("pillowd"), pillows=len(supervisor.keys)
            )
            supervisor.run(
                self._signals.stop,
                each_tick=[lambda: self._each_tick(parts)],
                tick_seconds=TICK_SECONDS if self._watch is None else _WATCHED_TICK_SECONDS,
            )
            return self._drain(supervisor, parts.reloader.config.daemon.shutdown_timeout)

    def _stand_by(self, reason: str) -> None:
        """Report that another daemon runs the pillows."""
        if not self._is_standby:
            self._is_standby = True
            self._notifier.ready()
        self._notifier.alive()
        self._notifier.status(reason)
        self._logs.flush()

    def _lose(self, parts: Parts, reason: str) -> None:
        """Cut everything that writes, and end: another daemon may run the pillows from now on."""
        self._is_lost = True
        self._signals.stop.set()
        parts.supervisor.stop_all()
        parts.supervisor.kill_all(f"the lease is lost: {reason}")
        if parts.rebuilder is not None:
            parts.rebuilder.close()

    def _take_state(self, stack: ExitStack, grant: Grant) -> StateDir:
        path = self._config.daemon.state_dir
        give_up_at = self._clock.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return stack.enter_context(
                    open_state_dir(path, self._clock, self._logs.redactor, grant.shared)
                )
            except StoreLocked:
                if self._clock.monotonic() >= give_up_at or self._signals.stop.is_set():
                    raise
                self._clock.wait(self._signals.stop, _DRAIN_STEP_SECONDS)

    def _each_tick(self, parts: Parts) -> None:
        self._logs.flush()
        self._notifier.alive()
        states = parts.supervisor.states()
        self._trimmer.tick(states)
        self._notifier.status(summary(states))
        if self._watch is not None:
            self._watch(parts.supervisor.statuses())
        parts.reloader.request(self._signals.reloads)
        if parts.verification is not None:
            parts.verification.tick()
        if parts.rebuilder is not None:
            parts.rebuilder.tick()

    def _drain(self, supervisor: Supervisor, seconds: float) -> int:
        """Stop all tails at once, and kill those that do not drain in `seconds`. Return the exit code."""
        _log.info("daemon.stopping", running=len(supervisor.running), timeout_seconds=seconds)
        self._notifier.stopping()
        self._notifier.extend(seconds + _SPARE_SECONDS)
        supervisor.stop_all()
        if not self._until_idle(supervisor, self._signals.force_stop, seconds):
            forced = self._signals.force_stop.is_set()
            supervisor.kill_all("a second signal" if forced else f"not finished in {seconds:g} s")
            self._until_idle(supervisor, Event(), _KILL_SECONDS)
        self._logs.flush()
        _log.info("daemon.stopped", cut=[str(key) for key in supervisor.killed_on_shutdown])
        return 1 if supervisor.killed_on_shutdown or self._is_lost else 0

    def _until_idle(self, supervisor: Supervisor, force_stop: Event, seconds: float) -> bool:
        """Tick until no tail runs. Return False if `force_stop` was set or the time is up."""
        give_up_at = self._clock.monotonic() + seconds
        while supervisor.running:
            if self._clock.monotonic() >= give_up_at or self._clock.wait(force_stop, _DRAIN_STEP_SECONDS):
                break
            supervisor.tick()
            self._notifier.status(f"stopping, {len(supervisor.running)} pillows to finish")
            self._notifier.alive()
        supervisor.tick()
        return not supervisor.running


def summary(states: Collection[State]) -> str:
    """Return the number of tails in each state, as one line."""
    if not states:
        return "no pillows"
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states).most_common())
    return f"{len(states)} pillow{'s' if len(states) > 1 else ''}: {counts}"
