"""One run of a pillow on several databases: open the targets, then run turns until a stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import gevent
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Checkpoint, CheckpointStore, IntegrityError, Seq
from pillows.couch.client import CouchClient
from pillows.couch.database_info import get_server_info
from pillows.databases.member_observer import MemberObserver
from pillows.databases.member_store import PatternStore, carry_over
from pillows.databases.members import Members, is_member
from pillows.databases.names import DatabaseNames
from pillows.databases.settings import DatabasesSettings
from pillows.databases.shared_transport import SharedTransport
from pillows.databases.turn_queue import DatabaseState, TurnQueue
from pillows.databases.turns.first_turn import FirstTurn
from pillows.databases.turns.turn import Turn
from pillows.databases.watch import ServerWatch
from pillows.errors import RetryableError, StoppedError
from pillows.feed.base import DatabaseIdentity
from pillows.progress.checkpointer import Checkpointer, is_transactional
from pillows.progress.lag import Rate
from pillows.progress.watermark import WatermarkMove
from pillows.retry.cancellable import TICK_SECONDS, StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.runtime.startup import TailStartup
from pillows.runtime.status import State
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_settings import TailServices
from pillows.user_code import confine
from pillows.verify.repair import repair

#: Extra turns beyond `max_active` while some wait for a silent source or for the target. With all other
#: requests there are at most 64 connections.
SPARE_TURNS = 24

#: Why a database gets no more turns.
GONE = "it is deleted, or excluded"

#: Interval of the search for dead letters that are due, and for backfills.
DUE_SECONDS = 5.0

#: A pillow is behind, and not live, when a database has waited this long for its turn.
BEHIND_SECONDS = 60.0


class DatabasesRun:
    """Runs a pillow once.

    Args:
        settings: the pillow's.
        services: the pillow's.
        store: all checkpoints.
        monitor: follows what happens.
        halt: ends the run, after the changes that turns have read are written and checkpointed.

    Attributes:
        queue: the databases.
        rate: counts acknowledged changes.
        checkpointer: the checkpoint of all databases together; None until the run has started.
    """

    def __init__(
        self,
        settings: DatabasesSettings,
        services: TailServices,
        store: CheckpointStore,
        monitor: TailMonitor,
        *,
        halt: Event,
    ) -> None:
        self.queue = TurnQueue()
        self.rate = Rate(services.clock)
        self.checkpointer: Checkpointer | None = None
        self._settings = settings
        self._services = services
        self._store = store
        self._monitor = monitor
        self._halt = halt
        self._clock = services.clock
        self._wake = Event()
        self._trouble: Exception | None = None
        self._turns: dict[str, Turn | FirstTurn] = {}
        self._held: set[str] = set()
        self._greenlets: set[gevent.Greenlet[..., None]] = set()
        self._observer = MemberObserver(services.observer, settings.key, self.rate)
        self._retrier = Retrier(
            settings.key,
            StopAwareWaiter(services.clock, halt, monitor.tick),
            services.observer,
            monitor.note_trouble,
        )
        self._members: Members | None = None
        self._watch: ServerWatch | None = None
        self._counted = 0
        self._due_at = 0.0

    def run(self) -> None:
        """Give databases their turns until `halt` is set, then wait for the running turns.

        Raises:
            CheckpointMoved: an operator edited the pillow's checkpoint: run again.
            FatalError: the pillow cannot go on.
            StoppedError: a stop was requested while something was retried.
        """
        self._halt.rawlink(lambda _: self._wake.set())
        with ExitStack() as stack:
            couch = self._settings.make_client()
            couch.acquire()
            stack.callback(couch.release)
            pattern, shared = self._open(stack, couch)
            self.checkpointer = checkpointer = self._build_checkpointer(pattern, shared)
            self._members = members = Members(
                self._settings,
                self._services,
                self._store,
                pattern,
                shared=shared,
                couch=couch,
                queue=self.queue,
                observer=self._observer,
            )
            self._watch = watch = ServerWatch(
                couch,
                self._settings.source,
                DatabaseNames(self._settings.source.databases, self._settings.source.exclude),
                self.queue,
                on_mark=self._wake.set,
                warn=lambda event, details: self._services.observer.warning(
                    self._settings.key, event=event, details=details
                ),
                since=None if pattern.seq == Seq.BEGINNING else pattern.seq,
            )
            stack.enter_context(self._store.watching(self._settings.key, self._note_edit))
            left = members.load()
            stack.callback(self._end_greenlets)
            self._spawn(watch.run_updates, self._halt)
            self._spawn(watch.run_sweeps, self._halt)
            self._spawn(self._forget, members, left)
            while not self._halt.is_set():
                self._begin_turns(members)
                self._mark_due(members)
                self._enter_state(watch)
                self._save(checkpointer, watch.since)
                self._wait()
            self._drain()
            if self._trouble is not None:
                raise self._trouble
            checkpointer.save()

    def find_turn(self, name: str) -> Turn | FirstTurn | None:
        """Return the running turn of a database."""
        return self._turns.get(name)

    @property
    def behind_at(self) -> float | None:
        """Monotonic seconds since when changes may wait; None if every healthy database is at its head."""
        known = [self.queue.oldest_dirty_at(), *(turn.began_at for turn in self._turns.values())]
        if self._watch is not None:
            known.append(self._watch.behind_at)
        return min((at for at in known if at is not None), default=None)

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds when the server last sent anything; None before that."""
        known = [turn.last_byte_at for turn in self._turns.values()]
        if self._watch is not None:
            known.append(self._watch.last_byte_at)
        return max((at for at in known if at is not None), default=None)

    def repair(self, name: str, ids: Sequence[str], halt: Event) -> None:
        """Send documents of a database through the pipeline again.

        No turn of it may run meanwhile: see `holding`.

        Raises:
            StoppedError: `halt` was set, or the run has not begun.
            FatalError: the pipeline cannot run.
        """
        if self._members is None:
            raise StoppedError
        repair(*self._members.get_parts(name), ids, halt=halt)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Begin no turn of a database; its state may change meanwhile, such as by a pause.

        Raises:
            RetryableError: somebody else holds it.
        """
        if name in self._held:
            raise RetryableError(f"{name} is being repaired already.")
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
            self._wake.set()

    def wake(self) -> None:
        """Have the run check the queue at once."""
        self._wake.set()

    def _note_edit(self) -> None:
        """Note that an operator edited the checkpoint of all databases together."""
        if self.checkpointer is not None:
            self.checkpointer.note_edit()
            self._wake.set()

    # --- start and end

    def _open(self, stack: ExitStack, couch: CouchClient) -> tuple[Checkpoint, Sequence[SharedTransport]]:
        """Open the shared transports, and return the common checkpoint of all databases.

        Check once for all databases: refuse a lost state directory, an emptied target or changed outputs.
        """
        settings, services = self._settings, self._services
        former = carry_over(self._store, settings.key, settings.tail.digest.source)
        store = PatternStore(self._store, partial(is_member, settings, self._store))
        services = replace(services, store=store)
        if settings.make_apart is not None:  # each database opens its own
            services = replace(services, make_transports=lambda: ())
        startup = TailStartup(settings.tail, services, _ServerSource(couch), self._retrier)
        transports, checkpoint = startup.run(stack)
        if former is not None:
            self._store.forget(former)
            details = {"former": former.database, "now": settings.key.database}
            services.observer.notice(settings.key, event="databases.changed", details=details)
        if settings.make_apart is not None:
            return checkpoint, ()
        shared = [SharedTransport(each, settings.tail.batch, checkpoint, self._fail) for each in transports]
        for each in shared:
            stack.callback(each.close)
        return checkpoint, shared

    def _build_checkpointer(self, pattern: Checkpoint, shared: Sequence[SharedTransport]) -> Checkpointer:
        services = self._services
        copied = is_transactional([each.transport for each in shared])

        def copy(checkpoint: Checkpoint) -> bool:
            try:
                shared[0].save(checkpoint)
            except RetryableError:
                return False  # the state directory gets it, and the turns report the target
            return True

        return Checkpointer(
            self._store,
            self._settings.key,
            pattern,
            options=self._settings.tail.checkpoints,
            clock=services.clock,
            observer=services.observer,
            copy_to_target=copy if copied else None,
        )

    def _spawn(self, work: object, *args: object) -> None:
        def run() -> None:
            try:
                work(*args)  # type: ignore[operator]
            except StoppedError:
                pass
            except BaseException as error:  # noqa: BLE001 - raised by the run
                self._fail(confine(error))

        greenlet = gevent.spawn(run)
        self._greenlets.add(greenlet)
        greenlet.rawlink(self._greenlets.discard)

    def _end_greenlets(self) -> None:
        gevent.killall(list(self._greenlets))

    def _drain(self) -> None:
        """Wait for the running turns: they write the changes that they have read."""
        for turn in self._turns.values():
            turn.stop()
        while self._turns:
            self._wake.clear()
            self._clock.wait(self._wake, TICK_SECONDS)
            self._monitor.tick()

    def _fail(self, error: Exception) -> None:
        """End the run with an error that concerns all databases."""
        if not isinstance(error, StoppedError):
            self._trouble = self._trouble or error
            self._halt.set()

    # --- turns

    def _begin_turns(self, members: Members) -> None:
        limit = self._settings.source.max_active
        # Those that are repaired, or whose former turn has not ended: a pause, or rows that are removed.
        held: list[str] = []
        while len(self._turns) < limit + SPARE_TURNS:
            if sum(turn.is_reading for turn in self._turns.values()) >= limit:
                break
            name = self.queue.take(self._clock.monotonic())
            if name is None:
                break
            if not members.matches(name):  # marked all the same, such as by `resume`
                self.queue.leave_out(name, GONE)
                continue
            if name in self._turns or name in self._held:
                held.append(name)
                continue
            try:
                self._turns[name] = turn = members.make_turn(name)
            except IntegrityError as error:
                self.queue.fail(name, str(error))
                continue
            turn.on_head(self._wake.set)  # another may read now
            self._spawn(self._run_turn, name, turn, members)
        for name in held:
            self.queue.requeue(name, self._clock.monotonic())

    def _run_turn(self, name: str, turn: Turn | FirstTurn, members: Members) -> None:
        try:
            members.end_turn(name, turn.run())
            database = self.queue.get(name)
            if database is not None and database.state is DatabaseState.DELETED:
                self._forget(members, [name])  # before another turn: it may be recreated meanwhile
        finally:
            del self._turns[name]
            self._wake.set()

    def _forget(self, members: Members, names: Sequence[str]) -> None:
        """If configured, remove the rows of databases that are deleted or no longer match."""
        for name in names:
            self.queue.add(name)
            self.queue.delete(name, GONE)
            if self._settings.source.on_deleted == "remove":
                removed = members.remove(name, self._retrier)
                details = {"database": name, "removed": removed}
                self._services.observer.notice(self._settings.key, event="database.removed", details=details)

    def _mark_due(self, members: Members) -> None:
        """Mark databases that have due dead letters, or documents to send again."""
        now = self._clock.monotonic()
        if now < self._due_at:
            return
        self._due_at = now + DUE_SECONDS
        key = self._settings.key
        tails = [*self._services.dead_letters.list_due(key.pillow), *self._settings.list_backfills()]
        for tail in tails:
            name = tail.database
            if tail.pillow == key.pillow and name in self.queue and members.matches(name):
                self.queue.mark(name, now)

    def _wait(self) -> None:
        """Wait until a database is marked, a turn ends, or a back-off is over."""
        seconds = 1.0 if self._turns else TICK_SECONDS
        until_retry = self.queue.next_wait(self._clock.monotonic())
        if until_retry is not None:
            seconds = min(seconds, max(0.01, until_retry))
        self._clock.wait(self._wake, seconds)
        self._wake.clear()
        self._monitor.tick()

    # --- progress

    def _save(self, checkpointer: Checkpointer, since: Seq | None) -> None:
        changes = self._observer.changes - self._counted
        self._counted += changes
        if changes or (since is not None and since != checkpointer.current.seq):
            checkpointer.advance(WatermarkMove(seq=since, changes=changes))
        else:
            checkpointer.save_if_due()

    def _enter_state(self, watch: ServerWatch) -> None:
        troubles = [turn.trouble for turn in self._turns.values() if turn.trouble]
        oldest_at = self.queue.oldest_dirty_at()
        behind_seconds = 0.0 if oldest_at is None else self._clock.monotonic() - oldest_at
        if watch.trouble:
            self._monitor.enter(State.BACKING_OFF, f"source: {watch.trouble}")
        elif troubles and len(troubles) == len(self._turns):
            self._monitor.enter(State.BACKING_OFF, troubles[0])
        elif not watch.swept.is_set() or behind_seconds > BEHIND_SECONDS or self._is_first_load:
            self._monitor.enter(State.CATCHING_UP)
        else:
            self._monitor.enter(State.LIVE)

    @property
    def _is_first_load(self) -> bool:
        """Whether more databases wait than a few rounds of turns can read."""
        return self.queue.waiting > 4 * self._settings.source.max_active


class _ServerSource:
    """A whole server as a source, for the start decision."""

    def __init__(self, couch: CouchClient) -> None:
        self._couch = couch

    def identify(self) -> DatabaseIdentity:
        return DatabaseIdentity(server_uuid=get_server_info(self._couch).uuid)

    def mark(self) -> bool:
        return False

    def start(self) -> Seq:
        return Seq.BEGINNING

    def find_first(self) -> Seq:
        return Seq.BEGINNING
