"""Put a changed configuration into effect in the running daemon: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import gevent
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from msgspec import Struct

from checkpoints import StoreError, TailKey
from checkpoints.files.blocking import call_safely
from daemon.assembly.services import Services
from daemon.config.models import Config
from daemon.config.problems import ConfigErrors, ConfigProblem
from daemon.control.audit import Actor, AuditLog
from daemon.logs.setup import Logs
from daemon.process.systemd import Notifier
from daemon.reload.candidate import Candidate, InEffect, prepare_builds, prepare_candidate
from daemon.reload.difference import Difference
from daemon.reload.exchange import exchange_tails
from daemon.reload.source import ConfigSource
from daemon.supervision.stacks import Run
from daemon.supervision.supervisor import Supervisor
from pillows.errors import ConfigError, PillowError

#: How often a reload looks whether the former runs of tails have ended.
_STEP_SECONDS = 0.05
#: How long the supervisor may take to end a tail that did not drain in time.
_KILL_SECONDS = 5.0

_log = structlog.get_logger("pillowd.config")


class Reloaded(Struct, frozen=True, kw_only=True):
    """The result of a reload, or of its check.

    Attributes:
        difference: the added, changed, removed and unchanged tails.
        notes: the changes that only a restart applies.
    """

    difference: Difference
    notes: Sequence[str]


class ReloadRecord(Struct, frozen=True, kw_only=True):
    """The outcome of reloads so far. The start of the daemon counts as the first.

    Attributes:
        successful: whether the last one succeeded.
        succeeded_at: wall-clock seconds of the last that did.
    """

    successful: bool
    succeeded_at: float


class Reloader:
    """Reloads the configuration, one reload at a time.

    Only tails with changed parts restart (`daemon.reload.difference`); the others keep their greenlets and
    connections. A tail that takes over another's output starts after the other has stopped.

    Args:
        source: reads the configuration.
        in_effect: the configuration that runs.
        supervisor: runs the tails.
        services: what the tails share.
        logs: gets the level and the secrets to mask.
        notifier: reports the state to the service manager.
        audit: gets a line for each reload that was not requested through the API.
        stop: set when the daemon ends; reloads are refused after that.

    Attributes:
        record: the outcome so far.
    """

    def __init__(
        self,
        source: ConfigSource,
        in_effect: InEffect,
        *,
        supervisor: Supervisor,
        services: Services,
        logs: Logs,
        notifier: Notifier,
        audit: AuditLog,
        stop: Event,
    ) -> None:
        self._source = source
        self._in_effect = in_effect
        self._supervisor = supervisor
        self._services = services
        self._logs = logs
        self._notifier = notifier
        self._audit = audit
        self._stop = stop
        self._turn = BoundedSemaphore(1)
        self._requests = 0
        self._worker: gevent.Greenlet[[], None] | None = None
        self.record = ReloadRecord(successful=True, succeeded_at=services.clock.wall())

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self._in_effect.config

    def request(self, number: int) -> None:
        """Reload in the background if there are new requests; those during a reload cause one more after it.

        Args:
            number: of requests since the daemon started.
        """
        if number != self._requests and (self._worker is None or self._worker.dead):
            self._requests = number
            self._worker = gevent.spawn(self._reload_quietly)

    def reload(self) -> Reloaded:
        """Put the configuration into effect. Return when the former runs of its changed tails have ended.

        The reload continues if the calling greenlet is killed.

        Raises:
            ConfigErrors: it has problems, or needs a restart. Nothing has changed.
            ConfigError: it cannot be reloaded, or not now. Nothing has changed.
        """
        reloaded, error = gevent.spawn(call_safely, self._reload).get()
        if error is not None:
            raise error
        return cast("Reloaded", reloaded)

    def validate(self) -> Reloaded:
        """Return the changes that a reload would make.

        Raises:
            ConfigErrors, ConfigError: as `reload`.
        """
        with self._turn:
            candidate = prepare_candidate(self._source, self._in_effect, self._services, keep=False)
        return Reloaded(difference=candidate.difference, notes=candidate.notes)

    def find_drift(self, key: TailKey) -> str:
        """Return why the configuration files differ from the configuration of this running tail.

        Returns:
            The reason and the remedy; "" if they are equal.
        """
        try:
            difference = self.validate().difference
        except ConfigError as error:
            return f"the configuration has problems, beginning with: {str(error).splitlines()[-1].strip()}"
        if key in difference.unchanged:
            return ""
        return "the configuration has changed and was not reloaded. Remedy: `pillowd reload`"

    def follow_builds(self) -> None:
        """Start, replace and remove tails as the records of rebuilds have it, in the configuration in effect.

        Raises:
            ConfigError: a function can't be found. Nothing has changed.
        """
        with self._turn:
            self._put_into_effect(prepare_builds(self._source, self._in_effect, self._services))

    @contextmanager
    def hold_off(self) -> Iterator[None]:
        """Let no reload begin until the end of the `with`. Wait for one that runs."""
        with self._turn:
            yield

    def _reload(self) -> Reloaded:
        with self._turn, self._notifier.reloading():
            try:
                self._check_ready()
                candidate = prepare_candidate(self._source, self._in_effect, self._services, keep=True)
            except BaseException as error:
                self.record = ReloadRecord(successful=False, succeeded_at=self.record.succeeded_at)
                _log_refusal(error)
                raise
            before = self._in_effect
            self._put_into_effect(candidate)
            _log_success(before, candidate)
            self.record = ReloadRecord(successful=True, succeeded_at=self._services.clock.wall())
            return Reloaded(difference=candidate.difference, notes=candidate.notes)

    def _reload_quietly(self) -> None:
        """Reload because of a signal; log the outcome, since no caller waits for it."""
        with suppress(PillowError, StoreError, OSError):  # the log has it
            act = self._audit.begin("reload_config", by=Actor.this_process("signal"))
            try:
                self._reload()
            except BaseException as error:
                act.end_with(error)
                raise
            act.end("done")

    def _check_ready(self) -> None:
        if self._stop.is_set():
            raise ConfigError("the daemon is stopping, so nothing is reloaded.", remedy="start it again")
        if ending := [str(key) for key in self._supervisor.running if key not in self._supervisor.keys]:
            raise ConfigError(
                f"an earlier reload removed {', '.join(ending)}, which has not stopped yet.",
                remedy="try again in a moment",
            )

    def _put_into_effect(self, candidate: Candidate) -> None:
        old, new = self._in_effect, candidate.in_effect
        self._in_effect = new
        self._logs.configure_level(new.config.logging.level)
        self._logs.redactor.learn(new.config)
        options = new.config.daemon
        self._supervisor.set_limits(options.restart, options.shutdown_timeout)
        ending = exchange_tails(
            self._supervisor, candidate.difference, candidate.factories, old=old.parts, new=new.parts
        )
        self._await_end(ending, options.shutdown_timeout + _KILL_SECONDS)
        if self._services.feeds is not None:
            self._services.feeds.drop_unused()

    def _await_end(self, runs: Sequence[Run], seconds: float) -> None:
        """Wait until the runs have ended and their successors have started."""
        clock = self._services.clock
        give_up_at = clock.monotonic() + seconds
        while any(not run.dead for run in runs) and clock.monotonic() < give_up_at:
            if clock.wait(self._stop, _STEP_SECONDS):
                return
            self._supervisor.tick()
        self._supervisor.tick()


def _log_success(old: InEffect, candidate: Candidate) -> None:
    for warning in candidate.in_effect.config.warnings:
        if warning not in old.config.warnings:
            _log.warning("config.warning", where=_locate(warning), text=str(warning))
    for note in candidate.notes:
        _log.warning("config.needs_restart", where=note, reason=note)
    _log.info("config.reloaded", **summarize(candidate.difference))


def _log_refusal(error: BaseException) -> None:
    """Log each problem, with its own `where`: else all but the first would count as repetitions."""
    if isinstance(error, ConfigErrors):
        for problem in error.problems:
            _log.error("config.problem", where=_locate(problem), reason=str(problem))
        reason = f"{len(error.problems)} problems, each in an event config.problem"
    else:
        reason = str(error) or type(error).__name__
    _log.error("config.refused", reason=f"{reason}. The former configuration stays in effect")


def summarize(difference: Difference) -> Mapping[str, object]:
    """Return a difference as JSON values."""
    return {
        "added": [str(key) for key in difference.added],
        "changed": [str(key) for key in difference.changed],
        "removed": [str(key) for key in difference.removed],
        "unchanged": len(difference.unchanged),
    }


def _locate(problem: ConfigProblem) -> str:
    return f"{problem.place.file}:{problem.place.line} {problem.key}"
