"""What a tail shows of itself while it runs: its state, its lag, its last sign of life."""

from __future__ import annotations

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.models import ChangeBatch
from pillows.observer import Observer
from pillows.progress.watermark import WatermarkMove
from pillows.runtime.status import State


class TailMonitor:
    """Follows the state of one tail.

    Args:
        key: the tail.
        clock: for ages.
        observer: receives each new state.

    Attributes:
        state, reason: the tail's state, and why it is in it.
        ticked_at: monotonic seconds of the last sign of life.
        pending: changes after the checkpoint, as the server last said; None if unknown.
        pending_at: monotonic seconds when it said so.
    """

    def __init__(self, key: TailKey, clock: Clock, observer: Observer) -> None:
        self.state = State.STARTING
        self.reason = ""
        self.ticked_at = self.pending_at = clock.monotonic()
        self.pending: int | None = None
        self._key = key
        self._clock = clock
        self._observer = observer
        self._caught_up = False

    def tick(self) -> None:
        """Note a sign of life."""
        self.ticked_at = self._clock.monotonic()

    def start(self) -> None:
        """Note that a run starts."""
        self._caught_up = False
        self.enter(State.STARTING)

    def note_batch(self, batch: ChangeBatch, trouble: str | None) -> None:
        """Note a batch of the feed.

        Args:
            batch: the batch; may be empty.
            trouble: why the feed waits for a retry; None while it is well.
        """
        self.tick()
        self.note_pending(batch.pending)
        if trouble:
            self.enter(State.BACKING_OFF, trouble)
        elif self.state in (State.STARTING, State.BACKING_OFF):
            self._resume()

    def note_pending(self, pending: int | None) -> None:
        """Note the number of changes after the checkpoint; None says nothing."""
        if pending is not None:
            self.pending, self.pending_at = pending, self._clock.monotonic()

    def note_retry(self, where: str, error: str) -> None:
        """Note that something is retried."""
        self.enter(State.BACKING_OFF, f"{where}: {error}")

    def note_move(self, move: WatermarkMove) -> None:
        """Note that a batch was acknowledged."""
        self._caught_up = self._caught_up or move.caught_up
        self._resume()

    def enter(self, state: State, reason: str = "") -> None:
        """Enter a state; the observer receives it if it is new."""
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._observer.state(self._key, state=state, reason=reason)

    def _resume(self) -> None:
        self.enter(State.LIVE if self._caught_up else State.CATCHING_UP)
