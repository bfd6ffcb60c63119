"""The observable state of a running tail: its state, its lag, its last sign of life."""

from __future__ import annotations

from collections.abc import Hashable

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.models import ChangeBatch
from pillows.observer import Observer
from pillows.progress.lag import Lag
from pillows.progress.watermark import WatermarkMove
from pillows.runtime.status import State

#: The operation that reads the feed.
_FEED = "feed"


class TailMonitor:
    """Follows the state of one tail.

    A tail is in trouble while anything is retried. Each trouble is ended only by the success of what was
    retried: that the source answers says nothing about the target.

    Args:
        key: the tail.
        clock: for ages.
        observer: receives each new state.

    Attributes:
        state, reason: the tail's state, and why it is in it.
        ticked_at: monotonic seconds of the last sign of life.
        pending: the server's last number of changes that are not read yet; None if unknown.
        pending_at: monotonic seconds of that answer.
        lag: measures the tail's lag and rate.
    """

    def __init__(self, key: TailKey, clock: Clock, observer: Observer) -> None:
        self.state = State.STARTING
        self.reason = ""
        self.ticked_at = self.pending_at = clock.monotonic()
        self.pending: int | None = None
        self.lag = Lag(clock)
        self._key = key
        self._clock = clock
        self._observer = observer
        self._caught_up = False
        self._doubt = ""
        self._troubles: dict[Hashable, str] = {}

    def tick(self) -> None:
        """Note a sign of life."""
        self.ticked_at = self._clock.monotonic()

    def start(self) -> None:
        """Note that a run starts."""
        self._caught_up = False
        self._troubles.clear()
        self._doubt = ""
        self.lag.start()
        self.enter(State.STARTING)

    def note_batch(self, batch: ChangeBatch, trouble: str | None, last_byte_at: float | None = None) -> None:
        """Note a batch of the feed.

        Args:
            batch: the batch; may be empty.
            trouble: why the feed waits for a retry; None while it is well.
            last_byte_at: monotonic seconds of the last byte from the source; None if that is not known.
        """
        self.tick()
        self.lag.note_batch(batch, is_well=not trouble, last_byte_at=last_byte_at)
        if batch.pending is not None:
            self.note_pending(batch.pending)
        if trouble or _FEED in self._troubles:
            self.note_trouble(_FEED, trouble or "")
        if self.state is State.STARTING:
            self._resume()

    def note_pending(self, pending: int) -> None:
        """Note the number of changes that are not read yet."""
        self.pending, self.pending_at = pending, self._clock.monotonic()

    def note_unread(self, unread: int) -> None:
        """Note the source's answer to how many changes are not read yet."""
        self.note_pending(unread)
        self.lag.note_unread(unread)

    def note_trouble(self, operation: Hashable, reason: str) -> None:
        """Note why an operation is retried; an empty reason says that it has succeeded.

        Args:
            operation: identifies the operation.
            reason: where it failed, and why.
        """
        if reason:
            self._troubles.pop(operation, None)  # the newest is last
            self._troubles[operation] = reason
            self.enter(State.BACKING_OFF, reason)
        elif self._troubles.pop(operation, None) is not None:
            self._resume()

    def note_doubt(self, reason: str) -> None:
        """Note why targets may differ from the source although all changes are written; "" if they don't."""
        self._doubt = reason
        if self.state is not State.STARTING:
            self._resume()

    def note_move(self, move: WatermarkMove) -> None:
        """Note that a batch was acknowledged."""
        self._caught_up = self._caught_up or move.caught_up
        self.lag.note_acknowledged(move.changes)
        self._resume()

    def enter(self, state: State, reason: str = "") -> None:
        """Enter a state; the observer receives it if it is new."""
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._observer.state(self._key, state=state, reason=reason)

    def _resume(self) -> None:
        if self._troubles:
            self.enter(State.BACKING_OFF, list(self._troubles.values())[-1])
        elif self._doubt:
            self.enter(State.CATCHING_UP, self._doubt)
        else:
            self.enter(State.LIVE if self._caught_up else State.CATCHING_UP)
