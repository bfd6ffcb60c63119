"""The databases of a pillow: their checkpoints, their turns, and the decision after each turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, CheckpointStore, IntegrityError, TailKey
from pillows.couch.client import CouchClient
from pillows.databases.listing import DIGEST_BYTES, parse_identity
from pillows.databases.member_store import MemberStore, give_way
from pillows.databases.names import DatabaseNames, is_of_several
from pillows.databases.settings import DatabasesSettings
from pillows.databases.shared_transport import DatabaseTransport, SharedTransport, compare_checkpoints
from pillows.databases.turn_queue import TurnQueue
from pillows.databases.turns.first_turn import FirstTurn
from pillows.databases.turns.turn import Turn, TurnEnd, TurnResult
from pillows.databases.turns.turn_feed import MAX_SECONDS, TurnFeed
from pillows.feed.documents.throttle import ConcurrencyLimit
from pillows.observer import Observer, Rewind
from pillows.progress.checkpointer import is_transactional
from pillows.retry.retrier import Retrier
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.transports.base import Transport

#: A deletion reported by `_db_updates` may be late. For a database younger than this, it may be the deletion
#: of an earlier one that was created in the same second.
YOUNG_SECONDS = 3600.0

#: The note of a checkpoint, in place of proofs, of a database without rows: they were removed.
_REMOVED = "removed"


def is_member(settings: DatabasesSettings, store: CheckpointStore, tail: TailKey) -> bool:
    """Return whether a checkpoint belongs to one of the pillow's databases, and not to a former source.

    It has the digest of the pillow's source, or was reset and has none.
    """
    connection, _, database = tail.source.partition("/")
    if (
        tail.pillow != settings.key.pillow
        or connection != settings.source.connection
        or is_of_several(database)
    ):
        return False
    try:
        stored = store.get(tail)
    except IntegrityError:
        return True  # its turn will say so
    if stored is None:
        return False
    return stored.digest.source == settings.tail.digest.source or (
        stored.pass_epoch == PASS_TO_BEGIN and not stored.digest.source
    )


class Members:
    """The databases of one run of a pillow.

    Args:
        settings: the pillow's.
        services: the pillow's; its store has all checkpoints.
        store: the checkpoints.
        pattern: the checkpoint of all databases together.
        shared: the transports, unless each database has its own.
        couch: the server.
        queue: the states of the databases.
        observer: receives the events of turns.
    """

    def __init__(
        self,
        settings: DatabasesSettings,
        services: TailServices,
        store: CheckpointStore,
        pattern: Checkpoint,
        *,
        shared: Sequence[SharedTransport],
        couch: CouchClient,
        queue: TurnQueue,
        observer: Observer,
    ) -> None:
        source = settings.source
        self._settings = settings
        self._services = services
        self._store = store
        self._pattern = pattern
        self._member_store = MemberStore(
            store, pattern, is_copy=is_transactional([each.transport for each in shared])
        )
        self._names = DatabaseNames(source.databases, source.exclude)
        self._shared = shared
        self._couch = couch
        self._queue = queue
        self._observer = observer
        self._limit = ConcurrencyLimit(couch.connection.fetches)

    def load(self) -> list[str]:
        """Add the databases with a checkpoint to the queue, parked; return those that no longer match."""
        left: list[str] = []
        kept = {tail for tail in give_way(self._store.keys()) if is_member(self._settings, self._store, tail)}
        known = set(kept)
        for shared in self._shared:
            known |= compare_checkpoints(shared, kept, self._store.get)
        for tail in give_way(sorted(known)):
            if self._names.matches(tail.database):
                self._queue.add(tail.database, self._read_proofs(tail), paused=self._settings.is_paused(tail))
            else:
                left.append(tail.database)
        return left

    def matches(self, name: str) -> bool:
        """Return whether a database belongs to the pillow: a former one may still have dead letters."""
        return self._names.matches(name)

    def make_turn(self, name: str) -> Turn | FirstTurn:
        """Return a turn of a database.

        Raises:
            IntegrityError: its checkpoint cannot be read.
        """
        settings, services = self.get_parts(name)
        if services.backfill is None and self._is_new(settings.key):
            feed = self._make_feed(settings.key)
            return FirstTurn(settings, services, feed, make_turn=lambda: Turn(settings, services))
        return Turn(settings, services)

    def get_parts(self, name: str) -> tuple[TailSettings, TailServices]:
        """Return the settings and services of a database's turn, which begins at its checkpoint.

        Raises:
            IntegrityError: its checkpoint cannot be read.
        """
        settings, services, tail = self._settings, self._services, self._settings.tail_of(name)
        stored = self._member_store.get(tail)
        database, clock = self._queue.get(name), services.clock
        until = clock.monotonic() + MAX_SECONDS

        def is_over() -> bool:
            """Return whether another database, or a change of this one, waits."""
            return clock.monotonic() >= until or bool(database and database.dirty_since is not None)

        backfill = settings.make_backfill(tail, is_over)

        def is_busy(is_late: bool) -> bool:
            letters_are_due = not is_late and services.dead_letters.is_due(tail)
            return letters_are_due or (backfill is not None and backfill.is_running)

        return (
            replace(settings.tail, key=tail, pillow=settings.pillow_of(tail)),
            replace(
                services,
                make_feed=lambda: self._make_feed(tail, is_busy),
                make_transports=lambda: self._make_transports(tail, stored),
                store=self._member_store,
                observer=self._observer,
                backfill=None if backfill is None else backfill.run,
            ),
        )

    def _make_feed(self, tail: TailKey, is_busy: Callable[[bool], bool] = lambda _: False) -> TurnFeed:
        database, options = self._queue.get(tail.database), self._settings.source
        source = options.model_copy(
            update={
                "database": tail.database,
                "databases": (),
                "documents": "include_docs",
                "on_missing": "fail",
            }
        )
        return TurnFeed(
            self._couch,
            source,
            prefilter=self._settings.prefilter,
            observer=self._observer,
            tail=tail,
            limit=self._limit,
            found=parse_identity(database.identity) if database else None,
            is_busy=is_busy,
        )

    @property
    def _have_first_turns(self) -> bool:
        """Whether a new database may begin with a `FirstTurn`: nothing is asked of each but its changes."""
        settings, source = self._settings, self._settings.source
        return (
            self._pattern.first_pass
            and self._pattern.pass_epoch == 1
            and settings.make_apart is None
            and source.since == "beginning"
            and source.max_rate is None
            and not source.is_filtered_by_server
            and not source.identity_token
            and not settings.tail.pillow.max_attachment_bytes
        )

    def _is_new(self, tail: TailKey) -> bool:
        """Return whether nothing of a database is stored anywhere, and it was found a moment ago."""
        database = self._queue.get(tail.database)
        found = parse_identity(database.identity) if database else None
        return (
            self._have_first_turns
            and found is not None
            and found.has_start_time
            and database is not None
            and not database.failures
            and self._member_store.get(tail) is None
            and not any(tail.database in each.ahead or tail.database in each.lost for each in self._shared)
            and not self._services.dead_letters.count(tail)
        )

    def end_turn(self, name: str, result: TurnResult) -> None:
        """Note in the queue how a turn ended."""
        now, tail = self._services.clock.monotonic(), self._settings.tail_of(name)
        self._services.dead_letters.release(tail)
        match result.end:
            case TurnEnd.HEAD if self._may_be_another(tail):
                reason = "it was deleted, and created again in the same second, as far as can be told"
                self._begin_pass(tail, Rewind.RECREATED, reason)
            case TurnEnd.HEAD:
                self._queue.park(name, now)
                self._write_proofs(tail)
                if tail in self._settings.list_backfills():
                    self._queue.mark(name, now)
            case TurnEnd.MORE:
                self._queue.requeue(name, now)
            case TurnEnd.PURGED:
                self._begin_pass(tail, Rewind.REGRESSED, result.reason)
            case TurnEnd.RECREATED if self._settings.source.on_recreated == "reload":
                self._begin_pass(tail, Rewind.RECREATED, result.reason)
            case TurnEnd.RECREATED | TurnEnd.FAILED:
                self._queue.fail(name, result.reason)
                self._observer.warning(tail, event="database.failed", details={"reason": result.reason})
            case TurnEnd.MISSING:
                if self._queue.miss(name, now, result.reason):
                    details = {"on_deleted": self._settings.source.on_deleted}
                    self._observer.warning(tail, event="database.deleted", details=details)
            case TurnEnd.BACK_OFF:
                wait_seconds = self._queue.back_off(name, now, result.reason)
                facts = {"reason": result.reason, "delay_seconds": wait_seconds}
                self._observer.warning(tail, event="database.backing_off", details=facts)

    def remove(self, name: str, retrier: Retrier) -> int:
        """Remove the rows of a database that is gone, and forget its dead letters; return the number of rows.

        Its checkpoint stays: a database that is created again under that name begins with a higher epoch.

        Raises:
            FatalError: a target cannot do it.
            StoppedError: a stop was requested meanwhile.
        """
        tail = self._settings.tail_of(name)
        stored = self._find_checkpoint(tail)
        if stored is None or self._store.get_note(tail) == _REMOVED:
            return 0
        removed, epoch = 0, stored.epoch + 1
        with ExitStack() as stack:
            # A pass that was to fill an empty target, and was not completed, has written rows, too.
            for transport in self._make_transports(tail, replace(stored, pass_done=True)):
                stack.callback(transport.close)
                if self._settings.make_apart is not None:
                    retrier.retry_write(transport.name, transport.open)
                    retrier.retry_write(transport.name, partial(transport.acquire, stored))
                removed += retrier.retry_write(transport.name, partial(transport.finish_pass, epoch))
        self._services.dead_letters.forget_all(tail)
        self._store.edit(tail, lambda current: Checkpoint.reset(current or stored))
        self._store.note(tail, _REMOVED)  # a reset alone may also be an operator's, and its rows are there
        return removed

    def _find_checkpoint(self, tail: TailKey) -> Checkpoint | None:
        """Return a database's checkpoint, or the copy in the target if a crash left only that."""
        stored = self._store.get(tail)
        if stored is not None:
            return stored
        states = [each.ahead.get(tail.database) for each in self._shared]
        return next((state.checkpoint for state in states if state is not None), None)

    def _make_transports(self, tail: TailKey, stored: Checkpoint | None) -> Sequence[Transport]:
        if self._settings.make_apart is not None:
            return self._settings.make_apart(tail)
        fills_empty = self._pattern.first_pass
        if stored is not None:
            fills_empty = stored.first_pass and not stored.pass_done
        return [DatabaseTransport(each, tail, stored, first_pass=fills_empty) for each in self._shared]

    def _may_be_another(self, tail: TailKey) -> bool:
        """Return whether a database may have been recreated since it was last read.

        CouchDB reports the creation time in seconds, so two databases of the same second look alike. A
        reported deletion proves little: moving a shard also reports the deletion of one copy.
        """
        database = self._queue.get(tail.database)
        if database is None or not database.was_deleted or (stored := self._store.get(tail)) is None:
            return False
        database.was_deleted = False
        created_at = stored.instance_start_time or ""
        return created_at.isdigit() and self._services.clock.wall() - int(created_at) < YOUNG_SECONDS

    def _begin_pass(self, tail: TailKey, kind: Rewind, reason: str) -> None:
        """Begin a pass of a database. The rows that the pass does not write are removed at its end."""
        self._observer.rewind(tail, kind=kind, reason=reason)
        self._store.edit(tail, Checkpoint.reset)
        database = self._queue.get(tail.database)
        if database is not None:
            database.proofs, database.identity, database.was_deleted = b"", "", False
        self._queue.requeue(tail.database, self._services.clock.monotonic())

    # --- proofs that nothing follows a checkpoint

    def _write_proofs(self, tail: TailKey) -> None:
        database = self._queue.get(tail.database)
        if database is not None and not database.confirm_at:
            self._store.note(tail, database.proofs.hex(" ", DIGEST_BYTES).split())

    def _read_proofs(self, tail: TailKey) -> bytes:
        """Return the proofs of an earlier run, if they are about the current checkpoint."""
        try:
            was_reset = self._member_store.get(tail) != self._store.get(tail)
            if was_reset or any(tail.database in shared.ahead for shared in self._shared):
                return b""
            return b"".join(map(bytes.fromhex, self._store.get_note(tail) or ()))
        except (IntegrityError, TypeError, ValueError):
            return b""
