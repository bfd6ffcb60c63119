"""One turn of one database: a run of a tail whose feed ends at the head."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import StrEnum

from gevent.event import Event
from msgspec import Struct

from checkpoints import CheckpointMoved, TailKey
from pillows.clock import Clock
from pillows.databases.turns.turn_feed import TurnFeed
from pillows.errors import (
    AccessError,
    ConfigError,
    FatalError,
    PurgesMissedError,
    RetryableError,
    SourceChangedError,
    SourceMissingError,
    StoppedError,
)
from pillows.observer import Observer
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_run import TailRun
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.user_code import describe_error

#: A turn that received nothing from its source for this time does not count as one of `max_active`: a few
#: hanging databases must not hold up the others.
STALLED_SECONDS = 2.0

#: Nor does a turn that has read everything and has at most this many changes to write: other turns read
#: meanwhile, and the target gets larger batches.
FEW_CHANGES = 100


class TurnEnd(StrEnum):
    """How a turn ended."""

    HEAD = "head"
    MORE = "more"
    MISSING = "missing"
    RECREATED = "recreated"
    PURGED = "purged"
    BACK_OFF = "back-off"
    FAILED = "failed"


class TurnResult(Struct, frozen=True, kw_only=True):
    """The end of a turn.

    Attributes:
        end: how it ended.
        reason: why it ended early; empty if it read everything.
    """

    end: TurnEnd
    reason: str = ""


#: The end of a turn by the class of its error; the first match counts. Any other error is a defect: the
#: database backs off.
_ENDS: Mapping[tuple[type[Exception], ...], TurnEnd] = {
    (CheckpointMoved, StoppedError): TurnEnd.MORE,
    (SourceMissingError,): TurnEnd.MISSING,
    (PurgesMissedError,): TurnEnd.PURGED,
    (SourceChangedError,): TurnEnd.RECREATED,
    # A new database may get its design document with the filter a little later.
    (AccessError, ConfigError, RetryableError): TurnEnd.BACK_OFF,
    (FatalError,): TurnEnd.FAILED,
}


class TurnMonitor(TailMonitor):
    """Monitors one turn, and ends it when its source fails, so that other databases need not wait.

    A failing target is retried within the turn, since it fails for all databases.

    Args:
        tail: the database's tail.
        clock: for ages.
        halt: set to end the turn.
    """

    def __init__(self, tail: TailKey, clock: Clock, halt: Event) -> None:
        super().__init__(tail, clock, Observer())
        self.failure = ""
        self._halt = halt

    def note_trouble(self, operation: Hashable, reason: str) -> None:
        """Note why an operation is retried. End the turn if that operation reads the source."""
        super().note_trouble(operation, reason)
        if reason.startswith("source: "):
            self.failure = reason
            self._halt.set()


class Turn:
    """One turn of one database. It begins when the object is made.

    Args:
        settings: of the database's tail.
        services: of that tail; `make_feed` returns a `TurnFeed`.

    Attributes:
        began_at: monotonic seconds.
    """

    def __init__(self, settings: TailSettings, services: TailServices) -> None:
        self.began_at = services.clock.monotonic()
        self._clock = services.clock
        self._halt = Event()
        self._monitor = TurnMonitor(settings.key, services.clock, self._halt)
        self._run = TailRun(settings, services, self._monitor, halt=self._halt)

    def run(self) -> TurnResult:
        """Carry the waiting changes, and save the checkpoint."""
        try:
            self._run.run()
        except Exception as error:  # noqa: BLE001 - one database must not end the others
            return classify(error)
        if self._monitor.failure:
            return TurnResult(end=TurnEnd.BACK_OFF, reason=self._monitor.failure)
        if self._run.save_error:
            return not_saved(self._run.save_error)
        is_done = self._reached_head and not self._run.unacknowledged
        return TurnResult(end=TurnEnd.HEAD if is_done else TurnEnd.MORE)

    def stop(self) -> None:
        """Ask the turn to end soon. The changes already read are still written."""
        self._halt.set()

    def on_head(self, callback: Callable[[], None]) -> None:
        """Note that the head is reached. Some changes may still have to be written."""
        if isinstance(self._run.feed, TurnFeed):
            self._run.feed.head.rawlink(lambda _: callback())

    @property
    def trouble(self) -> str:
        """Why a target is retried; "" if none is."""
        return self._monitor.reason

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last byte received from the source; None before the first."""
        return self._run.feed.last_byte_at

    @property
    def is_reading(self) -> bool:
        """Whether the turn counts as one of `max_active`: the source is not silent, and it has much to do."""
        unacknowledged = self._run.unacknowledged
        if self._reached_head:
            return unacknowledged > FEW_CHANGES
        silent_seconds = self._clock.monotonic() - (self.last_byte_at or self.began_at)
        return silent_seconds < STALLED_SECONDS or unacknowledged > 0

    @property
    def _reached_head(self) -> bool:
        feed = self._run.feed
        return isinstance(feed, TurnFeed) and feed.head.is_set()


def not_saved(error: str) -> TurnResult:
    """Return how a turn ends whose checkpoint could not be saved: the same changes are read again. Pure.

    The database may not be parked: nothing but another turn would save its dead letters.
    """
    return TurnResult(end=TurnEnd.BACK_OFF, reason=f"checkpoint: {error}")


def classify(error: Exception) -> TurnResult:
    """Return how a turn ends with an error. Pure."""
    for kinds, end in _ENDS.items():
        if isinstance(error, kinds):
            return TurnResult(end=end, reason=str(error))
    return TurnResult(end=TurnEnd.BACK_OFF, reason=describe_error(error))
