"""A tail: a pillow on one source database, run after run, and its status.

The supervisor creates a new tail for each start, so no state of a crashed tail is left.
"""

from __future__ import annotations

from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Checkpoint, CheckpointMoved
from pillows.errors import LaterEpochError, PurgesMissedError, SourceChangedError, StoppedError
from pillows.observer import Rewind
from pillows.runtime.status import State, TailStatus
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_run import TailRun
from pillows.runtime.tail_settings import TailServices, TailSettings

#: A target that takes longer for a batch makes its tail `catching-up`.
SLOW_WRITE_SECONDS = 5.0


class Tail:
    """Runs a tail until it is stopped.

    Args:
        settings: the values that it runs with.
        services: the parts that it uses.

    Attributes:
        key: the pillow and its source.
    """

    def __init__(self, settings: TailSettings, services: TailServices) -> None:
        self.key = settings.key
        self._settings = settings
        self._services = services
        self._monitor = TailMonitor(settings.key, services.clock, services.observer)
        self._run: TailRun | None = None

    @property
    def state(self) -> State:
        """The state that the tail is in."""
        return self._monitor.state

    @property
    def reason(self) -> str:
        """Why the tail is in its state."""
        return self._monitor.reason

    @property
    def ticked_at(self) -> float:
        """Monotonic seconds of the last sign of life."""
        return self._monitor.ticked_at

    def run(self, stop: Event) -> None:
        """Run until `stop` is set, then drain: write the changes that were read, and save the checkpoint.

        Raises:
            FatalError: the tail cannot continue; the text has the reason and the remedy.
        """
        while not stop.is_set():
            halt = Event()

            def relay(_: Event, halt: Event = halt) -> None:
                halt.set()

            stop.rawlink(relay)
            try:
                self._run_once(halt)
            except LaterEpochError as error:
                self._follow(error)
            except CheckpointMoved:
                self._note_rewind(Rewind.EDITED, "an operator edited the checkpoint")
            except PurgesMissedError as error:
                self._begin_pass(error)
            except SourceChangedError as error:
                self._reload(error)
            except StoppedError:
                continue
            finally:
                stop.unlink(relay)
        self._monitor.enter(State.STOPPED)

    def status(self) -> TailStatus:
        """Return the tail's facts at this moment."""
        progress = self._run.progress if self._run else None
        saved = progress.checkpointer.saved if progress else None
        clock = self._services.clock
        last_byte_at = self._run.feed.last_byte_at if self._run else None
        state, reason = self._state_and_reason()
        lag, pending = self._monitor.lag, self._pending()
        rate = lag.changes_per_second
        return TailStatus(
            pillow=self.key.pillow,
            source=self.key.source,
            state=state,
            reason=reason,
            seq=str(saved.seq) if saved else None,
            changes=progress.checkpoint.changes if progress else 0,
            pending=pending,
            lag_seconds=lag.seconds(self._run.oldest_arrived_at if self._run else None),
            changes_per_second=rate,
            seconds_to_go=_time_to_go(pending, rate),
            epoch=saved.epoch if saved else None,
            pass_number=saved.pass_epoch if saved and not saved.pass_done else None,
            dead_letters=self._services.dead_letters.count(self.key),
            last_byte_age_seconds=None if last_byte_at is None else clock.monotonic() - last_byte_at,
            # The wall clock may have been set back since.
            checkpoint_age_seconds=max(0.0, clock.wall() - saved.saved_at) if saved else None,
            pipeline_changed_at=saved.pipeline_changed_at if saved else None,
        )

    def _state_and_reason(self) -> tuple[State, str]:
        """Return the state and its reason; during a long write, the tail is not live."""
        seconds = self._run.writing_seconds if self._run else 0.0
        if self.state is State.LIVE and seconds >= SLOW_WRITE_SECONDS:
            return State.CATCHING_UP, f"a batch has been written for {seconds:.0f} s"
        return self.state, self.reason

    def _pending(self) -> int | None:
        """Return the number of changes that are not acknowledged; None if the server gave no number."""
        unread = self._monitor.pending
        return None if unread is None or self._run is None else unread + self._run.unacknowledged

    def _run_once(self, halt: Event) -> None:
        self._monitor.start()
        self._run = TailRun(self._settings, self._services, self._monitor, halt=halt)
        self._run.run()

    def _follow(self, error: LaterEpochError) -> None:
        """Go on in the epoch that another part of the pillow has begun, if the pillow has several parts."""
        stored = self._services.store.get(self.key)
        if not self._settings.is_part or stored is None or stored.epoch >= error.epoch:
            raise error
        self._services.store.save(self.key, replace(stored, epoch=error.epoch))

    def _begin_pass(self, error: PurgesMissedError) -> None:
        """Read the source from its beginning: what the pass does not meet is removed at its end."""
        self._note_rewind(Rewind.REGRESSED, str(error))
        self._services.store.edit(self.key, Checkpoint.reset)

    def _reload(self, error: SourceChangedError) -> None:
        """Read a recreated database from its beginning, if `on_recreated` is `reload`."""
        if not self._settings.reload_recreated:
            raise error
        self._note_rewind(Rewind.RECREATED, str(error))
        self._services.store.edit(self.key, Checkpoint.reset)

    def _note_rewind(self, kind: Rewind, reason: str) -> None:
        self._services.observer.rewind(self.key, kind=kind, reason=reason)


def _time_to_go(pending: int | None, changes_per_second: float) -> float | None:
    """Return the seconds until nothing is pending; None if that is not known, or nothing moves."""
    if not pending:
        return None if pending is None else 0.0
    return pending / changes_per_second if changes_per_second else None
