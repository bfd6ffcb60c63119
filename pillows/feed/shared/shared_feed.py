"""Pillows on one database share one connection to it.

Two positions cannot be compared, and on a cluster eight tails at one head hold four to six
different ones for ever. So a reader joins by time: the group remembers which position it held
`join_overlap` ago; by then every copy of the database has what that position covers. A reader whose
request was sent later, and whose answer was read to its end, has seen all of it: it takes the
group's position for its own, and the group's next request starts from there for everybody. The
others see some changes again, which their targets refuse by version.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import gevent
from gevent.event import Event

from checkpoints import Seq
from pillows.clock import Clock
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.shared.subscriber import JoinPoint, Subscriber
from pillows.models import Change, ChangeBatch, Document

#: How far apart the positions are that a group remembers.
STEP_SECONDS = 2.0

#: Joiners within this time share the request that takes them in.
GATHER_SECONDS = 5.0

#: A reader on its own looks so often whether it may join.
ALONE_SECONDS = 30.0


class SharedFeed:
    """One connection for many readers of one database.

    Args:
        make_feed: makes the feed that is shared, given whether a change's document is wanted.
        clock: for ages.
        overlap_seconds: how old a position must be to join at it.
        max_lag_bytes: a reader further behind leaves.
    """

    def __init__(
        self,
        make_feed: Callable[[Callable[[Change], bool]], CouchFeed],
        *,
        clock: Clock,
        overlap_seconds: float,
        max_lag_bytes: int,
    ) -> None:
        self._make_feed = make_feed
        self._clock = clock
        self._overlap_seconds = overlap_seconds
        self._max_lag_bytes = max_lag_bytes
        self._members: list[Subscriber] = []
        self._joining: list[Subscriber] = []
        self._held: deque[JoinPoint] = deque()
        self._began: JoinPoint | None = None
        self._identity: DatabaseIdentity | None = None
        self._halt = Event()
        self._ending = False
        self._reader: gevent.Greenlet[[], None] | None = None
        self.feed: CouchFeed | None = None

    @property
    def size(self) -> int:
        """How many readers it has, those that are about to join included."""
        return len(self._members) + len(self._joining)

    def offer(self, seq: Seq, asked_at: float) -> JoinPoint | None:
        """The position at which a reader may join; None: not yet.

        Args:
            seq: its own position.
            asked_at: when it sent a request whose whole answer it has taken.
        """
        if not self.size:
            return JoinPoint(self._clock.monotonic(), seq)  # it is the group
        old_enough = asked_at - self._overlap_seconds
        for held in reversed(self._held):
            if held.at <= old_enough:
                return held
            if held.seq == seq:
                return replace(held, exact=True)
        return None

    def join(
        self, held: JoinPoint, identity: DatabaseIdentity | None, wants: Callable[[Change], bool]
    ) -> Subscriber:
        """Takes a reader in, with the next request."""
        member = Subscriber(held, identity, wants, self._max_lag_bytes)
        self._joining.append(member)
        if self._reader is None:
            self._ending = False
            self._held.clear()
            self._began = None
            self._reader = gevent.spawn(self._read)
        elif len(self._joining) == 1:
            gevent.spawn(self._gather, self._halt)
        return member

    def drain(self) -> bool:
        """Ends the connection in good order, where nobody else needs it; returns whether it does."""
        if self.size > 1:
            return False
        self._ending = True
        self._halt.set()
        return True

    def leave(self, member: Subscriber) -> None:
        """Lets a reader go; the last one ends the group's connection."""
        for members in (self._members, self._joining):
            if member in members:
                members.remove(member)
        if not self.size and self._reader is not None:
            reader, self._reader = self._reader, None
            reader.kill()

    def _gather(self, halt: Event) -> None:
        self._clock.wait(halt, GATHER_SECONDS)
        halt.set()

    def _wants(self, change: Change) -> bool:
        return any(member.wants(change) for member in self._members)

    def _read(self) -> None:
        """Reads until nobody is left, request after request; each takes in who has come meanwhile."""
        self.feed = self._make_feed(self._wants)
        try:
            with closing(self.feed):
                while self.size and not self._ending:
                    since = self._take_in()
                    self._read_from(since, self.feed)
        except FatalError:
            pass  # each member reads on alone, and is told by the server what is wrong
        finally:
            if self._reader is gevent.getcurrent():  # else it was ended, and the group may be another's
                for member in [*self._members, *self._joining]:
                    member.leave()
                self._members, self._joining = [], []
                self._reader = None

    def _take_in(self) -> Seq:
        """Takes the joiners in, and returns the oldest position that anybody needs.

        Those who were taken in before need what their reading began at, until it has come to the head.
        Who joins at an equal position may begin nowhere else, and reads on alone where another needs an
        older one.
        """
        if self._joining:
            needed = [member.held for member in self._joining]
            self._began = min([*needed, self._began or needed[0]], key=lambda held: held.at)
            self._remember(self._began.seq)
        self._members = [m for m in [*self._members, *self._joining] if self._may_begin(m)]
        self._joining = []
        self._identity = next((m.identity for m in self._members if m.identity), self._identity)
        self._halt = Event()
        return self._held[-1].seq

    def _may_begin(self, member: Subscriber) -> bool:
        if self._began is None or not member.held.exact or member.held.seq == self._began.seq:
            return True
        member.leave()
        return False

    def _read_from(self, since: Seq, feed: CouchFeed) -> None:
        with closing(feed.batches(since, self._identity, self._halt)) as batches:
            for batch in batches:
                self._hand_out(batch)

    def _hand_out(self, batch: ChangeBatch) -> None:
        for member in self._members:
            member.put(batch)
        self._members = [member for member in self._members if not member.left]
        if batch.seq is not None:
            self._remember(batch.seq)
        if batch.asked_at is not None:
            self._settle()
        if not self._members:
            self._halt.set()

    def _settle(self) -> None:
        """The reading has come to the head: its members have seen what every older position covers."""
        self._began = None
        for member in self._members:
            member.held = replace(member.held, exact=False)

    def _remember(self, seq: Seq) -> None:
        """Keeps positions some seconds apart, and one that is old enough to join at."""
        now = self._clock.monotonic()
        if len(self._held) > 1 and self._held[-1].at - self._held[-2].at < STEP_SECONDS:
            self._held.pop()
        self._held.append(JoinPoint(now, seq))
        while len(self._held) > 1 and self._held[1].at <= now - self._overlap_seconds - ALONE_SECONDS:
            self._held.popleft()


class SubscribedFeed:
    """A feed that joins its group as soon as it is at the head. See `Feed` for the methods.

    Args:
        own: reads while it is alone.
        group: the readers of the same database.
        wants: whether a change's document is wanted.
    """

    def __init__(self, own: CouchFeed, group: SharedFeed, wants: Callable[[Change], bool]) -> None:
        self._own = own
        self._group = group
        self._wants = wants
        self._member: Subscriber | None = None

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte; None before the first."""
        return self._reading.last_byte_at

    @property
    def trouble(self) -> str | None:
        """Why the feed is waiting to try again; None while it is well."""
        return self._reading.trouble

    @property
    def shared(self) -> bool:
        """Whether it reads with others now."""
        return self._member is not None

    def identify(self) -> DatabaseIdentity:
        """Asks which database this is; one attempt."""
        return self._own.identify()

    def mark(self) -> bool:
        """Marks the database, where that was asked for; one attempt."""
        return self._own.mark()

    def start(self) -> Seq:
        """Where a tail without a checkpoint begins; one attempt."""
        return self._own.start()

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """A fresh read of documents' versions, by a quorum."""
        return self._own.leaves(ids)

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """The documents' state of now."""
        return self._own.current(ids)

    def fetch(self, change: Change) -> Document:
        """Fetches the document of a change that came without one; one attempt."""
        return self._own.fetch(change)

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Reads an attachment; one attempt."""
        return self._own.attachment(id, rev, name, max_bytes)

    def pending(self, since: Seq) -> int | None:
        """How many changes are behind `since`, as the server says."""
        return self._own.pending(since)

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Changes after `since`, for ever: alone first, then with the group, alone when it falls behind."""
        while not stop.is_set():
            try:
                # Closed here, not when the garbage collector comes: closing ends connections.
                with closing(self._alone(since, identity, stop)) as alone:
                    for batch in alone:
                        since = batch.seq or since
                        yield batch
                if self._member is None:
                    return
                identity = self._own.identity or identity
                with closing(self._member.batches(stop, self._group.drain)) as shared:
                    for batch in shared:
                        since = batch.seq or since
                        yield batch
            finally:
                self._leave()

    def close(self) -> None:
        """Closes every connection of its own. May be called twice."""
        self._own.close()

    def _alone(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Changes until it has joined the group; at last the position at which it did."""
        held: JoinPoint | None = None
        with closing(self._own.batches(since, identity, stop)) as alone:
            for batch in alone:
                since = batch.seq or since
                yield batch
                if batch.asked_at is not None and (held := self._group.offer(since, batch.asked_at)):
                    # At once: while this reading ends, somebody else could found the group elsewhere.
                    self._member = self._group.join(held, self._own.identity or identity, self._wants)
                    break
        if held is not None and held.seq != since:
            yield ChangeBatch(changes=(), seq=held.seq)

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            self._group.leave(member)

    @property
    def _reading(self) -> CouchFeed:
        shared = self._group.feed if self._member is not None else None
        return shared or self._own
