"""A tail's feed that reads alone until the shared one has taken over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

from gevent.event import Event

from checkpoints import Seq, TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.feed.base import DatabaseIdentity
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.listing import LISTED
from pillows.feed.shared.shared_feed import SharedFeed
from pillows.feed.shared.subscriber import Subscriber
from pillows.models import Change, ChangeBatch, Document


class SubscribedFeed:
    """A feed that joins the shared one as soon as it is at the head. See `Feed` for the methods.

    It reads alone until the shared feed, which reads from its position on, is at the head too. Nothing that
    is written meanwhile has to wait for that.

    Args:
        own: reads while it is alone.
        shared: the readers of the same database.
        wants: whether a change's document is wanted.
        tail: the tail that reads.
    """

    def __init__(
        self, own: CouchFeed, shared: SharedFeed, wants: Callable[[Change], bool], tail: TailKey = NO_TAIL
    ) -> None:
        self._own = own
        self._shared = shared
        self._wants = wants
        self._tail = tail
        self._joining: Subscriber | None = None
        self._subscriber: Subscriber | None = None
        self._is_open = True
        shared.register()

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte; None before the first."""
        return self._reading.last_byte_at

    @property
    def trouble(self) -> str | None:
        """Why the feed waits before it tries again; None while it is well."""
        return self._reading.trouble

    def identify(self) -> DatabaseIdentity:
        """Read the database's identity; a failure is not retried."""
        return self._own.identify()

    def mark(self) -> bool:
        """Write our identity token to the database, if that is configured; a failure is not retried."""
        return self._own.mark()

    def start(self) -> Seq:
        """Return where a tail without a checkpoint begins; a failure is not retried."""
        return self._own.start()

    def find_first(self) -> Seq:
        """Return where a pass into empty outputs begins; a failure is not retried."""
        return self._own.find_first()

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Read documents' leaf versions, by a quorum."""
        return self._own.leaves(ids)

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """Read the documents' current state with their JSON; a failure is not retried."""
        return self._own.current(ids)

    def fetch(self, change: Change) -> Document:
        """Fetch the document of a change that came without one; a failure is not retried."""
        return self._own.fetch(change)

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Read an attachment; a failure is not retried."""
        return self._own.attachment(id, rev, name, max_bytes)

    def pending(self, since: Seq) -> int | None:
        """Return how many changes follow `since`, as reported by the server."""
        return self._own.pending(since)

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Yield the changes after `since`: alone first, then shared, alone again after falling behind."""
        while not stop.is_set():
            try:
                # Closed here, not by the garbage collector: closing ends connections.
                with closing(self._read_alone(since, identity, stop)) as alone:
                    for batch in alone:
                        since = batch.seq or since
                        yield batch
                if stop.is_set() or self._joining is None:
                    return
                self._subscriber = self._joining
                identity = self._own.identity or identity
                if self._subscriber.held.seq != since:
                    yield ChangeBatch(changes=(), seq=self._subscriber.held.seq)
                with closing(self._subscriber.batches(stop, self._shared.drain)) as shared:
                    for batch in shared:
                        since = batch.seq or since
                        yield batch
            finally:
                self._leave()

    def close(self) -> None:
        """Close every connection of its own. May be called twice."""
        self._own.close()
        if self._is_open:
            self._is_open = False
            self._shared.unregister()

    def _read_alone(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Yield changes until a stop is requested, or the shared feed has taken over."""
        over = Event()

        def end(_: object) -> None:
            over.set()

        stop.rawlink(end)
        try:
            with closing(self._own.batches(since, identity, over)) as alone:
                for batch in alone:
                    since = batch.seq or since
                    yield batch
                    if over.is_set() and not stop.is_set():
                        break  # what this reading still brings comes from the shared feed, too
                    if self._joining is not None and self._joining.left and not over.is_set():
                        self._leave()
                    if self._joining is None:
                        self._joining = self._join_after(batch, since, identity)
                        if self._joining is not None:
                            self._joining.ready.rawlink(end)
        finally:
            stop.unlink(end)
            if self._joining is not None:
                self._joining.ready.unlink(end)

    def _join_after(
        self, batch: ChangeBatch, since: Seq, identity: DatabaseIdentity | None
    ) -> Subscriber | None:
        """Join the shared feed if it offers a position now."""
        if batch.seq is not None and not since.json.startswith(LISTED):
            self._shared.hold(self, since)
        if batch.asked_at is None:
            return None
        held = self._shared.offer(self, since, batch.asked_at)
        if held is None:
            return None
        # At once: another reader could open the connection.
        return self._shared.join(held, self._own.identity or identity, self._wants, self._tail)

    def _leave(self) -> None:
        joined, self._joining, self._subscriber = self._joining, None, None
        if joined is not None:
            self._shared.leave(joined)
        else:
            self._shared.release(self)

    @property
    def _reading(self) -> CouchFeed:
        shared = self._shared.feed if self._subscriber is not None else None
        return shared or self._own
