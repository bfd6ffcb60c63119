"""The daemon: open the state directory, run the pillows, answer the command, drain."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from gevent.event import Event

from checkpoints import StoreLocked, TailKey
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails, repair_documents
from daemon.config.dump import to_effective
from daemon.config.models import Config
from daemon.config_digests import digest_config
from daemon.control.api import ControlApi
from daemon.control.details import Details
from daemon.http.listeners import Listeners
from daemon.http.problems import to_answer
from daemon.logs.observer import LogObserver
from daemon.logs.setup import Logs
from daemon.process.malloc_trim import Trimmer
from daemon.process.signals import Signals
from daemon.process.systemd import Notifier
from daemon.reload.candidate import InEffect
from daemon.reload.reloader import Reloader
from daemon.reload.source import ConfigSource
from daemon.state_dir import StateDir, open_state_dir
from daemon.streams.notable_events import NotableEvents
from daemon.streams.senders import EventSource
from daemon.streams.taps import Taps
from daemon.supervision.paused_pillows import Pauses
from daemon.supervision.state_history import StateHistory
from daemon.supervision.supervisor import Supervisor
from daemon.supervision.transport_facts import TransportFacts
from daemon.verification.command import VerifyCommand
from daemon.verification.runner import VerifyRunner
from pillows.clock import Clock
from pillows.feed.shared.pool import FeedPool
from pillows.observer import CompositeObserver, Observer
from pillows.runtime.status import TailStatus

if TYPE_CHECKING:
    from daemon.metrics.metrics import Metrics

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
        self._next_status_at = 0.0
        self._events = NotableEvents(clock)
        self._taps = Taps(clock)
        self._notifier = Notifier(source.environ, clock)
        self._trimmer = Trimmer()
        self._metrics: Metrics | None = None
        self._history = StateHistory(clock)
        self._transports = TransportFacts(clock)

    def run(self) -> int:
        """Run until a signal asks to stop.

        Returns:
            The exit code: 0 when all pillows drained, 1 when one had to be killed.

        Raises:
            StoreLocked: another process holds the state directory, or answers on the admin socket.
            ConfigError: a Python path of the configuration cannot be imported.
            StoreError, OSError: the state directory cannot be used.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self._notifier))
            self._notifier.status("opening the state directory")
            state = self._take_state(stack)
            services = self._open_services(stack, state)
            in_effect = InEffect.of(self._config, self._source.list_keys(self._config))
            supervisor = self._supervise(services, state.pauses, in_effect)
            reloader = Reloader(
                self._source,
                in_effect,
                supervisor=supervisor,
                services=services,
                logs=self._logs,
                notifier=self._notifier,
                audit=state.audit,
                stop=self._signals.stop,
            )
            verification = self._make_verification(state, supervisor, services, reloader)
            self._serve(stack, state, supervisor, services, reloader, verification)
            supervisor.start_all()
            self._notifier.ready()
            _log.info(
                "daemon.started", pid=os.getpid(), version=version("pillowd"), pillows=len(supervisor.keys)
            )
            ticks = [lambda: self._each_tick(supervisor, reloader)]
            if verification is not None:
                stack.callback(verification.close)
                ticks.append(verification.tick)
            supervisor.run(self._signals.stop, each_tick=ticks)
            return self._drain(supervisor, reloader.config.daemon.shutdown_timeout)

    def _take_state(self, stack: ExitStack) -> StateDir:
        path = self._config.daemon.state_dir
        give_up_at = self._clock.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return stack.enter_context(open_state_dir(path, self._clock, self._logs.redactor))
            except StoreLocked:
                if self._clock.monotonic() >= give_up_at or self._signals.stop.is_set():
                    raise
                self._clock.wait(self._signals.stop, _DRAIN_STEP_SECONDS)

    def _open_services(self, stack: ExitStack, state: StateDir) -> Services:
        observers: list[Observer] = [LogObserver(), self._history, self._transports, self._events, self._taps]
        if self._listens:
            from daemon.metrics.metrics import Metrics  # noqa: PLC0415  without a listener nobody reads them

            self._metrics = Metrics(self._clock, self._config.daemon.state_dir)
            stack.enter_context(self._metrics.sampler.running())
            observers.append(self._metrics.observer)
        observer = CompositeObserver(observers)
        feeds = stack.enter_context(closing(FeedPool(clock=self._clock, observer=observer)))
        return Services(
            store=state.store,
            dead_letters=state.dead_letters,
            clock=self._clock,
            observer=observer,
            feeds=feeds,
        )

    def _supervise(self, services: Services, pauses: Pauses, in_effect: InEffect) -> Supervisor:
        options = self._config.daemon
        return Supervisor(
            build_tails(self._config, services, list(in_effect.parts)),
            clock=self._clock,
            observer=services.observer,
            pauses=pauses,
            policy=options.restart,
            stop_timeout_seconds=options.shutdown_timeout,
        )

    def _make_verification(
        self, state: StateDir, supervisor: Supervisor, services: Services, reloader: Reloader
    ) -> VerifyRunner | None:
        if self._source.path is None:
            return None
        return VerifyRunner(
            VerifyCommand(self._source.path, self._source.environ).run,
            get_config=lambda: reloader.config,
            find_drift=reloader.find_drift,
            supervisor=supervisor,
            comparisons=state.comparisons,
            observer=services.observer,
            clock=self._clock,
        )

    def _serve(
        self,
        stack: ExitStack,
        state: StateDir,
        supervisor: Supervisor,
        services: Services,
        reloader: Reloader,
        verification: VerifyRunner | None,
    ) -> None:
        redactor = self._logs.redactor
        api = ControlApi(
            keys=supervisor.keys,
            state=state,
            clock=self._clock,
            supervisor=supervisor,
            repair=lambda key, ids: repair_documents(reloader.config, services, key, ids),
            explain=lambda error: to_answer(error, redactor).body,
        )
        stack.callback(api.operations.close)
        details = Details(self._history, self._transports, lambda key: _name_transports(reloader.config, key))
        api.events = EventSource(api.snapshots.get, details.of, self._events, self._clock)
        api.taps = self._taps
        api.reloader, api.logs, api.verification = reloader, self._logs, verification
        api.config_digest = digest_config(self._config)
        api.effective_config = lambda: to_effective(reloader.config)
        state.audit.close_unfinished()
        if self._metrics is not None:
            from daemon.metrics.facts import collect_facts  # noqa: PLC0415  as above

            self._metrics.attach(collect_facts(api, services.feeds, reloader), supervisor.keys)
            api.render_metrics = self._metrics.render
        listeners = Listeners(api, self._clock, redactor)
        api.pillows.listeners = stack.enter_context(listeners.open(self._config.daemon))

    @property
    def _listens(self) -> bool:
        """Whether a listener is to be opened."""
        settings = self._config.daemon
        return bool(settings.http.listen or settings.admin.listen or settings.admin.tcp)

    def _each_tick(self, supervisor: Supervisor, reloader: Reloader) -> None:
        self._logs.flush()
        self._notifier.alive()
        if self._watch is not None or self._clock.monotonic() >= self._next_status_at:
            self._next_status_at = self._clock.monotonic() + _STATUS_SECONDS
            self._report(supervisor.statuses())
        reloader.request(self._signals.reloads)

    def _report(self, statuses: Sequence[TailStatus]) -> None:
        self._trimmer.tick(statuses)
        self._notifier.status(summary(statuses))
        if self._watch is not None:
            self._watch(statuses)

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


def _name_transports(config: Config, key: TailKey) -> list[str]:
    settings = config.tails.get(key.pillow)
    return [entry.name for entry in settings.transport] if settings is not None else []


def summary(statuses: Collection[TailStatus]) -> str:
    """Return the number of tails in each state, as one line."""
    if not statuses:
        return "no pillows"
    counts = Counter(str(status.state) for status in statuses)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{len(statuses)} pillow{'s' if len(statuses) > 1 else ''}: {states}"
