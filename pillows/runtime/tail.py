"""A tail: a pillow on one source database, run after run, and what it says of itself.

The supervisor builds a fresh tail for each start, so nothing of a crashed one is left.
"""

from __future__ import annotations

from contextlib import suppress

import gevent
from gevent.event import Event

from checkpoints import Checkpoint, CheckpointMoved
from pillows.errors import PillowError, SourceChangedError, StoppedError
from pillows.models import ChangeBatch
from pillows.progress.watermark import WatermarkMove
from pillows.runtime.status import State, TailStatus
from pillows.runtime.tail_run import TailRun
from pillows.runtime.tail_settings import TailSettings

#: A feed that reads tells at least this often how much is behind it. One that is held up by its target,
#: or waits for its source, does not: then the source is asked.
LAG_SECONDS = 30.0


class Tail:
    """Runs one plan until it is stopped.

    Args:
        plan: everything that it is made of.

    Attributes:
        key: the pillow and its source.
        state, reason: where it stands, and why.
        ticked_at: monotonic seconds of the last sign of life.
    """

    def __init__(self, plan: TailSettings) -> None:
        self.key = plan.key
        self.state = State.STARTING
        self.reason = ""
        self.ticked_at = plan.clock.monotonic()
        self._plan = plan
        self._caught_up = False
        self._pending: int | None = None
        self._pending_at = self.ticked_at
        self._run: TailRun | None = None

    def run(self, stop: Event) -> None:
        """Runs until `stop` is set, then drains: what was read is written and checkpointed.

        Raises:
            FatalError: it can't go on; its text has the reason and the remedy.
        """
        while not stop.is_set():
            halt = Event()

            def relay(_: Event, halt: Event = halt) -> None:
                halt.set()

            stop.rawlink(relay)
            try:
                self._run_once(halt)
            except CheckpointMoved:
                self._plan.observer.rewind(self.key, reason="an operator edited the checkpoint")
            except SourceChangedError as error:
                self._reload(error)
            except StoppedError:
                continue
            finally:
                stop.unlink(relay)
        self._enter(State.STOPPED)

    def tick(self) -> None:
        """A sign of life."""
        self.ticked_at = self._plan.clock.monotonic()

    def status(self) -> TailStatus:
        """The tail's facts at this moment."""
        keeper = self._run.keeper if self._run else None
        saved = keeper.saved if keeper else None
        return TailStatus(
            pillow=self.key.pillow,
            source=self.key.source,
            state=self.state,
            reason=self.reason,
            seq=str(saved.seq) if saved else None,
            changes=keeper.current.changes if keeper else 0,
            pending=self._pending,
            epoch=saved.epoch if saved else None,
            pass_number=saved.pass_epoch if saved and not saved.pass_done else None,
            dead_letters=self._plan.dead_letters.count(self.key),
            last_byte_age_seconds=self._age(self._run.feed.last_byte_at if self._run else None),
            # The wall clock may have been set back since.
            checkpoint_age_seconds=max(0.0, self._plan.clock.wall() - saved.saved_at) if saved else None,
            pipeline_changed_at=saved.pipeline_changed_at if saved else None,
        )

    # --- one run

    def _run_once(self, halt: Event) -> None:
        self._caught_up = False
        self._enter(State.STARTING)
        self._run = TailRun(
            self._plan,
            halt=halt,
            tick=self.tick,
            on_retry=self._on_retry,
            on_batch=self._on_batch,
            on_advance=self._on_advance,
        )
        asking = gevent.spawn(self._ask_for_lag, self._run, halt)
        try:
            self._run.execute()
        finally:
            asking.kill()

    def _ask_for_lag(self, run: TailRun, halt: Event) -> None:
        """Keeps `pending` true while the feed does not tell it."""
        clock = self._plan.clock
        while not clock.wait(halt, LAG_SECONDS):
            if run.keeper is None or clock.monotonic() - self._pending_at < LAG_SECONDS:
                continue
            with suppress(PillowError):  # the feed meets it too, and tells
                self._note_pending(run.feed.pending(run.keeper.current.seq))

    def _reload(self, error: SourceChangedError) -> None:
        """Reads a recreated database from its beginning, if that is what the operator chose."""
        if not self._plan.reload_recreated:
            raise error
        self._plan.observer.rewind(self.key, reason=str(error))
        self._plan.store.edit(self.key, Checkpoint.reset)

    def _on_batch(self, batch: ChangeBatch) -> None:
        self.tick()
        self._note_pending(batch.pending)
        trouble = self._run.feed.trouble if self._run else None
        if trouble:
            self._enter(State.BACKING_OFF, trouble)
        elif self.state in (State.STARTING, State.BACKING_OFF):
            self._resume()

    def _note_pending(self, pending: int | None) -> None:
        if pending is not None:
            self._pending, self._pending_at = pending, self._plan.clock.monotonic()

    def _on_retry(self, where: str, error: str) -> None:
        self._enter(State.BACKING_OFF, f"{where}: {error}")

    def _on_advance(self, advance: WatermarkMove) -> None:
        self._caught_up = self._caught_up or advance.caught_up
        self._resume()

    def _resume(self) -> None:
        self._enter(State.LIVE if self._caught_up else State.CATCHING_UP)

    def _enter(self, state: State, reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._plan.observer.state(self.key, state=state, reason=reason)

    def _age(self, at: float | None) -> float | None:
        return None if at is None else self._plan.clock.monotonic() - at
