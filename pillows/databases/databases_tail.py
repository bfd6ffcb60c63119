"""One pillow on many databases: those with changes take turns, all others are parked.

    for database in queue:                                  # by `_db_updates`, and by sweeps
        for change in changes(database, since=checkpoint):  # a turn: at most 10,000 changes or 10 s
            ...                                             # the ordinary pipeline, shared transports
        checkpoint.save()

A parked database is a small record: it has neither greenlet nor connection. So more databases make little
difference, except that a sweep takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gevent.event import Event

from checkpoints import CheckpointMoved, CheckpointStore, IntegrityError
from pillows.databases.databases_run import DatabasesRun
from pillows.databases.settings import DatabasesSettings
from pillows.databases.turn_queue import Database, DatabaseState
from pillows.errors import StoppedError
from pillows.observer import Rewind
from pillows.runtime.status import State, TailStatus
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_settings import TailServices
from pillows.verify.repair import limit_repair

#: Interval at which a repair checks whether the turn of its database has ended.
_LOOK_SECONDS = 0.05

#: The state of a single database, as the state of a tail.
_STATES: Mapping[DatabaseState, State] = {
    DatabaseState.PARKED: State.LIVE,
    DatabaseState.QUEUED: State.CATCHING_UP,
    DatabaseState.ACTIVE: State.CATCHING_UP,
    DatabaseState.BACKING_OFF: State.BACKING_OFF,
    DatabaseState.FAILED: State.FAILED,
    DatabaseState.PAUSED: State.PAUSED,
    DatabaseState.DELETED: State.STOPPED,
}


class DatabasesTail:
    """Runs a pillow on several databases until it is stopped.

    Args:
        settings: the values that it runs with.
        services: the parts that it uses.
        store: all checkpoints.

    Attributes:
        key: the pillow and its pattern.
    """

    def __init__(self, settings: DatabasesSettings, services: TailServices, store: CheckpointStore) -> None:
        self.key = settings.key
        self._settings = settings
        self._services = services
        self._store = store
        self._monitor = TailMonitor(settings.key, services.clock, services.observer)
        self._run: DatabasesRun | None = None

    @property
    def state(self) -> State:
        """The state of all databases together."""
        return self._monitor.state

    @property
    def ticked_at(self) -> float:
        """Monotonic seconds of the last sign of life."""
        return self._monitor.ticked_at

    def run(self, stop: Event) -> None:
        """Run until `stop` is set, then wait for the running turns.

        Raises:
            FatalError: the pillow cannot continue; the text has the reason and the remedy.
        """
        while not stop.is_set():
            halt = Event()

            def relay(_: Event, halt: Event = halt) -> None:
                halt.set()

            stop.rawlink(relay)
            try:
                self._monitor.start()
                self._run = DatabasesRun(
                    self._settings, self._services, self._store, self._monitor, halt=halt
                )
                self._run.run()
            except CheckpointMoved:
                reason = "an operator edited the checkpoint"
                self._services.observer.rewind(self.key, kind=Rewind.EDITED, reason=reason)
            except StoppedError:
                continue
            finally:
                stop.unlink(relay)
        self._monitor.enter(State.STOPPED)

    def status(self) -> TailStatus:
        """Return the facts of all databases together."""
        run, clock = self._run, self._services.clock
        checkpointer = run.checkpointer if run else None
        saved = checkpointer.saved if checkpointer else None
        now = clock.monotonic()
        behind_at, byte_at = (run.behind_at, run.last_byte_at) if run else (None, None)
        return TailStatus(
            pillow=self.key.pillow,
            source=self.key.source,
            state=self._monitor.state,
            reason=self._monitor.reason,
            seq=str(saved.seq) if saved else None,
            changes=checkpointer.current.changes if checkpointer else 0,
            lag_seconds=None if run is None else now - (now if behind_at is None else behind_at),
            changes_per_second=run.rate.per_second if run else None,
            epoch=saved.epoch if saved else None,
            dead_letters=self._services.dead_letters.count_of_pillow(self.key.pillow),
            last_byte_age_seconds=None if byte_at is None else now - byte_at,
            checkpoint_age_seconds=max(0.0, clock.wall() - saved.saved_at) if saved else None,
            pipeline_changed_at=saved.pipeline_changed_at if saved else None,
            databases=run.queue.state_counts() if run else {},
        )

    # --- single databases

    def __contains__(self, name: str) -> bool:
        return self._run is not None and name in self._run.queue

    def list_databases(self) -> Iterator[tuple[str, Database]]:
        """Yield every known database with its name."""
        return self._run.queue.items() if self._run else iter(())

    def status_of(self, name: str) -> TailStatus:
        """Return the facts of one database.

        Raises:
            KeyError: there is no such database.
        """
        database = self._run.queue.get(name) if self._run else None
        if database is None:
            raise KeyError(name)
        tail, clock = self._settings.tail_of(name), self._services.clock
        facts: dict[str, Any] = {}
        try:
            saved = self._store.get(tail)
        except IntegrityError:
            saved = None
        if saved is not None:
            facts = {
                "seq": str(saved.seq),
                "changes": saved.changes,
                "epoch": saved.epoch,
                "pass_number": None if saved.pass_done else saved.pass_epoch,
                "checkpoint_age_seconds": max(0.0, clock.wall() - saved.saved_at),
                "pipeline_changed_at": saved.pipeline_changed_at,
            }
        dirty_at = database.dirty_since
        return TailStatus(
            pillow=tail.pillow,
            source=tail.source,
            state=_STATES[database.state],
            reason=database.reason,
            lag_seconds=0.0 if dirty_at is None else clock.monotonic() - dirty_at,
            dead_letters=self._services.dead_letters.count(tail),
            **facts,
        )

    def pause(self, name: str) -> None:
        """Give a database no more turns. A running turn ends soon."""
        if self._run is not None and name in self._run.queue:
            turn = self._run.find_turn(name)
            self._run.queue.pause(name)
            if turn is not None:
                turn.stop()

    def resume(self, name: str) -> None:
        """Give a database a turn soon, also after a pause or a failure, or during a back-off."""
        if self._run is not None and name in self._run.queue:
            self._run.queue.resume(name, self._services.clock.monotonic())
            if (turn := self._run.find_turn(name)) is not None:
                turn.stop()  # it may have begun at a checkpoint that was edited since
            self._run.wake()

    def note_edit(self, name: str) -> None:
        """Note that a database's checkpoint was edited: read from there, unless the database is paused."""
        database = self._run.queue.get(name) if self._run else None
        if database is not None:
            database.proofs = database.proving = b""
            if database.state is not DatabaseState.PAUSED:
                self.resume(name)

    def repair(self, name: str, ids: Sequence[str]) -> None:
        """Send documents of a database through the pipeline again. Its turns wait until that is done.

        Raises:
            RetryableError: the source or the target was unreachable for too long, or a turn did not end in
                time.
            FatalError: the pipeline cannot run.
            KeyError: there is no such database.
        """
        run, clock = self._run, self._services.clock
        if run is None or name not in run.queue:
            raise KeyError(name)
        with limit_repair() as halt, run.holding(name):
            if (turn := run.find_turn(name)) is not None:
                turn.stop()
            while self.is_active(name) and not clock.wait(halt, _LOOK_SECONDS):
                pass
            if not halt.is_set():
                run.repair(name, ids, halt)

    def is_active(self, name: str) -> bool:
        """Return whether a database has its turn now."""
        return self._run is not None and self._run.find_turn(name) is not None
