"""The daemon's life: take the state directory, start the pillows, watch, drain, let go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import version

import structlog
from gevent.event import Event

from checkpoints import ControlServer, StoreLocked, TailKey
from daemon import state_dir
from daemon.assembly import build_tails, repair
from daemon.config.models import Config
from daemon.control.api import Operations
from daemon.log_observer import LogObserver
from daemon.logs import Logs
from daemon.malloc_trim import Trimmer
from daemon.restart_policy import RestartPolicy
from daemon.signals import Signals
from daemon.state_dir import StateDir
from daemon.supervisor import Supervisor
from daemon.systemd import Notifier
from pillows.clock import Clock
from pillows.runtime.status import TailStatus

#: How long the start waits for a command that holds the state directory for a moment.
_LOCK_SECONDS = 5.0
#: How often a drain is looked at.
_DRAIN_STEP_SECONDS = 0.1
#: How long killed pillows get to close what they have open.
_KILL_SECONDS = 1.0
#: What the service manager is asked to allow beyond the drain itself.
_SPARE_SECONDS = 10.0
#: How often all tails are looked at for the service manager: two hundred statuses with every tick were
#: a twelfth of what an idle daemon did.
_LOOK_SECONDS = 5.0

_log = structlog.get_logger("pillowd.daemon")


class Daemon:
    """One run of the daemon.

    Args:
        config: a valid configuration.
        keys: the tails that should run; all enabled ones unless given.
        environ: where the service manager's variables are looked up.
        clock: for every duration and wait.
        signals: what the process is told from outside.
        logs: the log, flushed with every tick.
        watch: told with every tick how the tails are.
    """

    def __init__(
        self,
        config: Config,
        *,
        keys: Collection[TailKey] | None,
        environ: Mapping[str, str],
        clock: Clock,
        signals: Signals,
        logs: Logs,
        watch: Callable[[Sequence[TailStatus]], None] | None = None,
    ) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock
        self._signals = signals
        self._logs = logs
        self._watch = watch
        self._reloads = 0
        self._look_at = 0.0
        self._notifier = Notifier(environ, clock)
        self._trimmer = Trimmer()

    def run(self) -> int:
        """Runs until it is told to stop.

        Returns:
            The exit code: 0 when everything in flight was finished, 1 when the stop had to be cut.

        Raises:
            StoreLocked: another process has the state directory, or answers on the control socket.
            ConfigError: a python path of the configuration cannot be imported.
            StoreError, OSError: the state directory cannot be used.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self._notifier))
            self._notifier.status("opening the state directory")
            state = self._take_state(stack)
            supervisor = self._supervise(state)
            self._serve(stack, state, supervisor)
            supervisor.start_all()
            self._notifier.ready()
            _log.info(
                "daemon.started", pid=os.getpid(), version=version("pillowd"), pillows=len(supervisor.keys)
            )
            supervisor.run(self._signals.stop, each_tick=[lambda: self._each_tick(supervisor)])
            return self._drain(supervisor)

    def _take_state(self, stack: ExitStack) -> StateDir:
        path = self._config.daemon.state_dir
        give_up_at = self._clock.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return stack.enter_context(state_dir.opened(path, self._clock))
            except StoreLocked:
                if self._clock.monotonic() >= give_up_at or self._signals.stop.is_set():
                    raise
                self._clock.wait(self._signals.stop, _DRAIN_STEP_SECONDS)

    def _supervise(self, state: StateDir) -> Supervisor:
        settings = self._config.daemon
        observer = LogObserver()
        factories = build_tails(
            self._config,
            store=state.store,
            letters=state.letters,
            clock=self._clock,
            observer=observer,
            keys=self._keys,
        )
        return Supervisor(
            factories,
            clock=self._clock,
            observer=observer,
            pauses=state.pauses,
            policy=RestartPolicy(
                first_delay_seconds=settings.restart.initial,
                max_delay_seconds=settings.restart.max,
                max_restarts=settings.restart.max_restarts,
                period_seconds=settings.restart.within,
            ),
            stop_timeout_seconds=settings.shutdown_timeout,
        )

    def _serve(self, stack: ExitStack, state: StateDir, supervisor: Supervisor) -> None:
        send = partial(
            repair,
            self._config,
            store=state.store,
            letters=state.letters,
            clock=self._clock,
            observer=LogObserver(),
        )
        operations = Operations(
            keys=supervisor.keys, state=state, clock=self._clock, supervisor=supervisor, repair=send
        )
        path = self._config.daemon.control.path
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        stack.enter_context(ControlServer(path, operations.calls))

    def _each_tick(self, supervisor: Supervisor) -> None:
        self._logs.flush()
        self._notifier.alive()
        if self._watch is not None or self._clock.monotonic() >= self._look_at:
            self._look_at = self._clock.monotonic() + _LOOK_SECONDS
            self._look(supervisor.statuses())
        if self._signals.reloads != self._reloads:
            self._reloads = self._signals.reloads
            _log.warning(
                "reload.ignored", reason="reload is not there yet; restart to read the configuration"
            )

    def _look(self, statuses: Sequence[TailStatus]) -> None:
        self._trimmer.tick(statuses)
        self._notifier.status(summary(statuses))
        if self._watch is not None:
            self._watch(statuses)

    def _drain(self, supervisor: Supervisor) -> int:
        """Stops all tails side by side. Whatever is not finished in time is killed."""
        seconds = self._config.daemon.shutdown_timeout
        _log.info("daemon.stopping", running=len(supervisor.running), timeout_seconds=seconds)
        self._notifier.stopping()
        self._notifier.extend(seconds + _SPARE_SECONDS)
        supervisor.stop_all()
        if not self._until_idle(supervisor, self._signals.force_stop, seconds):
            hurried = self._signals.force_stop.is_set()
            supervisor.kill_all("a second signal" if hurried else f"not finished in {seconds:g} s")
            self._until_idle(supervisor, Event(), _KILL_SECONDS)
        self._logs.flush()
        _log.info("daemon.stopped", cut=[str(key) for key in supervisor.killed_on_shutdown])
        return 1 if supervisor.killed_on_shutdown else 0

    def _until_idle(self, supervisor: Supervisor, cut: Event, seconds: float) -> bool:
        """Ticks until no tail runs any more. Returns False when it was cut, or too late."""
        give_up_at = self._clock.monotonic() + seconds
        while supervisor.running:
            if self._clock.monotonic() >= give_up_at or self._clock.wait(cut, _DRAIN_STEP_SECONDS):
                break
            supervisor.tick()
            self._notifier.status(f"stopping, {len(supervisor.running)} pillows to finish")
            self._notifier.alive()
        supervisor.tick()
        return not supervisor.running


def summary(statuses: Collection[TailStatus]) -> str:
    """All tails in one line: how many there are in each state."""
    if not statuses:
        return "no pillows"
    counts = Counter(str(status.state) for status in statuses)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{len(statuses)} pillow{'s' if len(statuses) > 1 else ''}: {states}"
