"""Run the scheduled comparisons, one at a time, and report the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import gevent
import structlog
from gevent.lock import BoundedSemaphore

from checkpoints import TailKey
from daemon.config.models import Config
from daemon.errors import ConflictError
from daemon.supervision.supervisor import Supervisor
from daemon.verification.comparisons import Comparison, Comparisons
from daemon.verification.schedule import choose, find_due
from pillows.clock import Clock
from pillows.errors import PillowError
from pillows.observer import Observer
from pillows.runtime.status import State

_log = structlog.get_logger("pillowd.verify")


class Compare(Protocol):
    """Compares one tail; see `VerifyCommand.run`."""

    def __call__(self, key: TailKey, *, options: Sequence[str], now: Callable[[], float]) -> Comparison:
        """Return the result."""


class VerifyRunner:
    """Runs the comparisons that are due: of tails that are live, since others are behind anyway.

    Args:
        compare: compares one tail.
        get_config: returns the configuration in effect.
        find_drift: returns why a comparison would use another configuration than the running tail;
            empty if it would not.
        supervisor: knows the states of tails.
        comparisons: keeps the results.
        observer: receives them.
        clock: for times.
    """

    def __init__(
        self,
        compare: Compare,
        *,
        get_config: Callable[[], Config],
        find_drift: Callable[[TailKey], str],
        supervisor: Supervisor,
        comparisons: Comparisons,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._compare = compare
        self._get_config = get_config
        self._find_drift = find_drift
        self._supervisor = supervisor
        self._comparisons = comparisons
        self._observer = observer
        self._clock = clock
        self._turn = BoundedSemaphore(1)
        self._worker: gevent.Greenlet[..., None] | None = None
        self._config: Config | None = None
        self._scheduled: frozenset[str] = frozenset()

    @property
    def running(self) -> bool:
        """Whether a comparison runs."""
        return self._worker is not None and not self._worker.dead

    def tick(self) -> None:
        """Begin the next comparison, if one is due and none runs."""
        scheduled = self._find_scheduled()
        if not scheduled or self.running:
            return
        key = choose((key for key in self._supervisor.keys if key.pillow in scheduled), self._find_due)
        if key is not None:
            repair = self._get_config().tails[key.pillow].verify.repair
            self._worker = gevent.spawn(self._run, key, repair=repair)

    def compare_now(self, key: TailKey, *, repair: bool = False, options: Sequence[str] = ()) -> Comparison:
        """Compare a tail after the comparisons that run, keep the result and report it.

        Args:
            key: the tail.
            repair: send differing documents through the pipeline again.
            options: more options of `pillowd verify`.

        Raises:
            ConflictError: it cannot be completed; the text says why.
        """
        with self._turn:
            reason = self._find_drift(key)
            now = self._clock.wall
            words = [*options, *(["--repair"] if repair else [])]
            found = (
                Comparison(at=now(), reason=reason) if reason else self._compare(key, options=words, now=now)
            )
            try:
                self._comparisons.put(key, found)
            except OSError as error:
                _log.error("verify.not_kept", pillow=str(key), reason=str(error))
        self._report(key, found)
        if found.reason:
            raise ConflictError(found.reason)
        return found

    def close(self) -> None:
        """End a comparison that runs."""
        if self._worker is not None:
            self._worker.kill()

    def _find_scheduled(self) -> frozenset[str]:
        """Return the pillows that are compared regularly; computed once for each configuration."""
        config = self._get_config()
        if config is not self._config:
            self._config = config
            self._scheduled = frozenset(
                name for name, tail in config.tails.items() if tail.verify.every is not None
            )
        return self._scheduled

    def _find_due(self, key: TailKey) -> float | None:
        options = self._get_config().tails[key.pillow].verify
        since = find_due(options, self._comparisons.get(key), self._clock.wall())
        if since is None:
            return None
        status = self._supervisor.status(key)
        return since if status.state is State.LIVE and status.pass_number is None else None

    def _run(self, key: TailKey, *, repair: bool) -> None:
        with suppress(PillowError):  # it is in the log, and due again later
            self.compare_now(key, repair=repair)

    def _report(self, key: TailKey, found: Comparison) -> None:
        if found.reason:
            _log.error("verify.failed", pillow=str(key), reason=found.reason)
            return
        self._observer.verified(key, differences=found.differences)
        write = _log.error if found.total else _log.warning if found.repaired else _log.info
        remedy = {"remedy": f"`pillowd verify {key} --repair`"} if found.total else {}
        write(
            "verify.completed",
            pillow=str(key),
            differences={name: dict(kinds) for name, kinds in found.differences.items()},
            repaired=found.repaired,
            **remedy,
        )
