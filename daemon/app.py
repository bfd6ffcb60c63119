"""The daemon: open the state directory, run the pillows, answer the command, drain."""

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
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails, repair_documents
from daemon.config.models import Config
from daemon.config_digests import digest_config
from daemon.control.api import ControlApi
from daemon.control.details import Details
from daemon.http.listeners import Listeners
from daemon.logs.observer import LogObserver
from daemon.logs.setup import Logs
from daemon.process.malloc_trim import Trimmer
from daemon.process.signals import Signals
from daemon.process.systemd import Notifier
from daemon.state_dir import StateDir, open_state_dir
from daemon.streams.notable_events import NotableEvents
from daemon.streams.senders import EventSource
from daemon.streams.taps import Taps
from daemon.supervision.paused_pillows import Pauses
from daemon.supervision.restart_policy import RestartPolicy
from daemon.supervision.state_history import StateHistory
from daemon.supervision.supervisor import Supervisor
from daemon.supervision.transport_facts import TransportFacts
from pillows.clock import Clock
from pillows.feed.shared.pool import FeedPool
from pillows.observer import CompositeObserver
from pillows.redaction import Redactor
from pillows.runtime.status import TailStatus

#: How long the start waits for a command that briefly holds the state directory.
_LOCK_SECONDS = 5.0
#: How often a drain is checked.
_DRAIN_STEP_SECONDS = 0.1
#: How long killed pillows may take to close their files and connections.
_KILL_SECONDS = 1.0
#: Time that the service manager is asked to allow in addition to the drain.
_SPARE_SECONDS = 10.0
#: How often the status of all tails is read for the service manager: with every tick, 200 statuses
#: were a twelfth of an idle daemon's CPU time.
_STATUS_SECONDS = 5.0

_log = structlog.get_logger("pillowd.daemon")


class Daemon:
    """One run of the daemon.

    Args:
        config: a valid configuration.
        keys: the tails that should run; all enabled ones unless given.
        environ: the environment, for the service manager's variables.
        clock: for every duration and wait.
        signals: the signals received.
        logs: the log, flushed with every tick.
        watch: receives the status of all tails with every tick.
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
        self._next_status_at = 0.0
        self._events = NotableEvents(clock)
        self._taps = Taps(clock)
        self._notifier = Notifier(environ, clock)
        self._trimmer = Trimmer()
        self._history = StateHistory(clock)
        self._transports = TransportFacts(clock)

    def run(self) -> int:
        """Run until a signal asks to stop.

        Returns:
            The exit code: 0 when all pillows drained, 1 when one had to be killed.

        Raises:
            StoreLocked: another process holds the state directory, or answers on the control socket.
            ConfigError: a Python path of the configuration cannot be imported.
            StoreError, OSError: the state directory cannot be used.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self._notifier))
            self._notifier.status("opening the state directory")
            state = self._take_state(stack)
            services = self._open_services(stack, state)
            supervisor = self._supervise(services, state.pauses)
            self._serve(stack, state, supervisor, services)
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
                return stack.enter_context(
                    open_state_dir(path, self._clock, Redactor.of_settings(self._config))
                )
            except StoreLocked:
                if self._clock.monotonic() >= give_up_at or self._signals.stop.is_set():
                    raise
                self._clock.wait(self._signals.stop, _DRAIN_STEP_SECONDS)

    def _open_services(self, stack: ExitStack, state: StateDir) -> Services:
        observer = CompositeObserver(
            [LogObserver(), self._history, self._transports, self._events, self._taps]
        )
        feeds = stack.enter_context(closing(FeedPool(clock=self._clock, observer=observer)))
        return Services(
            store=state.store,
            dead_letters=state.dead_letters,
            clock=self._clock,
            observer=observer,
            feeds=feeds,
        )

    def _supervise(self, services: Services, pauses: Pauses) -> Supervisor:
        settings = self._config.daemon
        return Supervisor(
            build_tails(self._config, services, self._keys),
            clock=self._clock,
            observer=services.observer,
            pauses=pauses,
            policy=RestartPolicy(
                first_delay_seconds=settings.restart.initial,
                max_delay_seconds=settings.restart.max,
                max_restarts=settings.restart.max_restarts,
                period_seconds=settings.restart.within,
            ),
            stop_timeout_seconds=settings.shutdown_timeout,
        )

    def _serve(self, stack: ExitStack, state: StateDir, supervisor: Supervisor, services: Services) -> None:
        api = ControlApi(
            keys=supervisor.keys,
            state=state,
            clock=self._clock,
            supervisor=supervisor,
            repair=partial(repair_documents, self._config, services),
        )
        details = Details(self._history, self._transports, self._name_transports)
        api.events = EventSource(api.snapshots.get, details.of, self._events, self._clock)
        api.taps = self._taps
        api.config_digest = digest_config(self._config)
        state.audit.close_unfinished()
        path = self._config.daemon.control.path
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        stack.enter_context(ControlServer(path, api.calls))
        # Until the command speaks HTTP, only what is configured is opened.
        if not any(self._config.root.find(("daemon", name)) for name in ("http", "admin")):
            return
        listeners = Listeners(api, self._clock, Redactor.of_settings(self._config))
        api.pillows.listeners = stack.enter_context(listeners.open(self._config.daemon))

    def _name_transports(self, key: TailKey) -> list[str]:
        settings = self._config.tails.get(key.pillow)
        return [entry.name for entry in settings.transport] if settings is not None else []

    def _each_tick(self, supervisor: Supervisor) -> None:
        self._logs.flush()
        self._notifier.alive()
        if self._watch is not None or self._clock.monotonic() >= self._next_status_at:
            self._next_status_at = self._clock.monotonic() + _STATUS_SECONDS
            self._report(supervisor.statuses())
        if self._signals.reloads != self._reloads:
            self._reloads = self._signals.reloads
            _log.warning(
                "reload.ignored", reason="not available yet. Restart the daemon to read the configuration"
            )

    def _report(self, statuses: Sequence[TailStatus]) -> None:
        self._trimmer.tick(statuses)
        self._notifier.status(summary(statuses))
        if self._watch is not None:
            self._watch(statuses)

    def _drain(self, supervisor: Supervisor) -> int:
        """Stop all tails at once, and kill those that do not drain in time. Return the exit code."""
        seconds = self._config.daemon.shutdown_timeout
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
        return 1 if supervisor.killed_on_shutdown else 0

    def _until_idle(self, supervisor: Supervisor, force_stop: Event, seconds: float) -> bool:
        """Tick until no tail runs. Return False if `force_stop` was set, or the time is over."""
        give_up_at = self._clock.monotonic() + seconds
        while supervisor.running:
            if self._clock.monotonic() >= give_up_at or self._clock.wait(force_stop, _DRAIN_STEP_SECONDS):
                break
            supervisor.tick()
            self._notifier.status(f"stopping, {len(supervisor.running)} pillows to finish")
            self._notifier.alive()
        supervisor.tick()
        return not supervisor.running


def summary(statuses: Collection[TailStatus]) -> str:
    """Return the number of tails in each state, as one line."""
    if not statuses:
        return "no pillows"
    counts = Counter(str(status.state) for status in statuses)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{len(statuses)} pillow{'s' if len(statuses) > 1 else ''}: {states}"
