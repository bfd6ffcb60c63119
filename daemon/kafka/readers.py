"""Read the databases of the units that are assigned to this daemon.

The readers' group divides the partitions of a topic without messages. Each partition stands for a unit: its
owner reads the databases of that unit. A reader that still runs after its unit was reassigned does no harm:
the next reader fences it before it begins.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import gevent
import structlog
from confluent_kafka import OFFSET_BEGINNING
from gevent.event import Event

from checkpoints import TailKey
from daemon.kafka.status_teller import StatusTeller
from daemon.supervision.paused_pillows import NoPauses
from daemon.supervision.supervised_tail import TailFactory
from daemon.supervision.supervisor import TICK_SECONDS, Supervisor
from pillows.change_topics.names import find_unit
from pillows.clock import Clock
from pillows.errors import FencedError, PillowError, RetryableError
from pillows.kafka.consumer import Consumer
from pillows.kafka.group import REVOKE_SECONDS, Listener, Offset
from pillows.observer import Observer
from pillows.retry.backoff import Backoff
from pillows.runtime.status import State, TailStatus

Settings = TypeVar("Settings")

#: The name used in place of a pillow's in the key of a reader.
READER = "reader"
#: Interval at which a failed reader is restarted: the cause may be gone.
RETRY_SECONDS = 60.0

#: The part of the time for a revoke that is reserved to kill readers that do not end.
_KILL_SECONDS = 0.5
_STEP_SECONDS = 0.02

_log = structlog.get_logger("pillowd.kafka")


class Readers(Generic[Settings]):
    """Runs readers; see `Listener` for the calls of the group.

    Args:
        find_databases: returns the key and the settings of each database to read.
        build: returns the factory of a reader.
        make_consumer: makes this daemon's consumer in the group.
        tell: publishes the statuses of readers; it may wait for brokers.
        clock: for waits.
        observer: receives the states of readers.

    Attributes:
        error: why reading has ended for good; None while it has not.
    """

    def __init__(
        self,
        find_databases: Callable[[], Mapping[TailKey, Settings]],
        build: Callable[[TailKey, Settings], TailFactory],
        make_consumer: Callable[[Listener], Consumer],
        tell: Callable[[Sequence[TailStatus]], None],
        *,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.error: PillowError | None = None
        self._find_databases = find_databases
        self._build = build
        self._make_consumer = make_consumer
        self._teller = StatusTeller(tell, clock)
        self._retried_at = clock.monotonic()
        self._clock = clock
        self._units: set[int] = set()
        self._running: dict[TailKey, Settings] = {}
        self._supervisor = Supervisor({}, clock=clock, observer=observer, pauses=NoPauses())

    def run(self, stop: Event) -> None:
        """Read until `stop` is set, or until another daemon with our member id has joined."""
        backoff = Backoff()
        while not stop.is_set():
            try:
                self._follow_group(stop, backoff)
            except Exception as error:  # noqa: BLE001 - without readers every pillow would stand still
                stack = "".join(traceback.format_tb(error.__traceback__))
                _log.error("readers.crashed", reason=repr(error), stack=stack)
                self.error = RetryableError(f"The readers crashed: {error!r}.")
            if isinstance(self.error, FencedError):
                _log.error("readers.failed", reason=str(self.error))
                return
            if self.error is not None:  # also a denial of access: a broker that restarts may deny it
                delay_seconds = backoff.after(RetryableError(str(self.error)))
                _log.warning("readers.retry", error=str(self.error), seconds=round(delay_seconds, 1))
                self._clock.wait(stop, delay_seconds)

    def statuses(self) -> list[TailStatus]:
        """Return the status of each reader that runs here."""
        return self._supervisor.statuses()

    def _follow_group(self, stop: Event, backoff: Backoff) -> None:
        """Stay in the group until `stop` is set or the membership ends."""
        self.error = None
        consumer = self._make_consumer(self)
        consumer.start()
        try:
            while not self._clock.wait(stop, TICK_SECONDS) and self.error is None:
                self._update()
                self._teller.tick(self.statuses)
                self._retry_failed()
                if self._units:
                    backoff.reset()
        finally:
            self._teller.close()
            consumer.close()  # ends the readers
            self._end(self._units.copy(), REVOKE_SECONDS)

    # --- Listener

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Read the databases of more units."""
        _log.info("readers.assigned", units=list(partitions))
        self._units.update(partitions)
        self._update()
        return dict.fromkeys(partitions, OFFSET_BEGINNING)

    def revoked(self, partitions: Sequence[int]) -> Sequence[Offset]:
        """Ask the readers of units to write the changes that they have read, and to end."""
        _log.info("readers.revoked", units=list(partitions))
        self._end(partitions, REVOKE_SECONDS - _KILL_SECONDS)
        return ()

    def lost(self, partitions: Sequence[int]) -> None:
        """End the readers of units. Those of the next owner have fenced them."""
        _log.warning("readers.lost", units=list(partitions))
        self._end(partitions, 0.0)

    def failed(self, error: PillowError) -> None:
        """Note why the membership has ended."""
        self.error = error

    # --- readers

    def _update(self) -> None:
        """Start missing readers, and end those that should not run."""
        self._supervisor.tick()
        wanted = {
            key: settings
            for key, settings in self._find_databases().items()
            if find_unit(key.source) in self._units
        }
        for key, settings in list(self._running.items()):
            if wanted.get(key) != settings:
                del self._running[key]
                self._supervisor.remove(key)
        for key, settings in wanted.items():
            # A reader that is still ending is restarted at a later tick.
            if key not in self._running and key not in self._supervisor.running:
                self._running[key] = settings
                self._supervisor.add(key, self._build(key, settings))
                self._supervisor.start(key)

    def _retry_failed(self) -> None:
        """Restart failed readers at an interval."""
        now = self._clock.monotonic()
        if now - self._retried_at < RETRY_SECONDS:
            return
        self._retried_at = now
        for key in self._running:
            if self._supervisor.status(key).state is State.FAILED:
                self._supervisor.start(key)

    def _end(self, units: Sequence[int] | set[int], seconds: float) -> None:
        """End the readers of units. Kill those that do not end in time."""
        self._units.difference_update(units)
        self._update()
        until = self._clock.monotonic() + seconds
        while (late := self._find_ending()) and self._clock.monotonic() < until:
            gevent.sleep(_STEP_SECONDS)
        for key in late:
            self._supervisor.kill(key, "its unit belongs to another daemon")

    def _find_ending(self) -> list[TailKey]:
        return [key for key in self._supervisor.running if key not in self._running]
