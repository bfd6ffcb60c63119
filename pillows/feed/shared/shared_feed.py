"""Read a database over one connection for all pillows that follow it.

Two positions cannot be compared, and on a cluster eight tails at one head hold four to six different ones
forever. So a reader joins by time: the feed remembers which position it held `join_overlap` ago; by then
every copy of the database has the changes that the position covers. A reader whose request was sent later,
and whose response was read to its end, has seen all of them: it continues at the shared feed's position, and
the next request starts there for everybody. The others see some changes again, which their targets reject by
version.

A lone reader has no second connection. It holds positions of its own reading, and opens the shared connection
when it is at the head and another reader has registered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import closing

import gevent
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Seq, TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.clock import Clock
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.follow import MAX_LIFE_SECONDS
from pillows.feed.shared.subscriber import JoinPoint, Subscriber
from pillows.models import Change, ChangeBatch

#: Shortest time between two positions that are remembered.
STEP_SECONDS = 2.0

#: Readers that join within this time share one new request.
GATHER_SECONDS = 5.0

#: How often a reader on its own checks whether it may join.
ALONE_SECONDS = 30.0


class SharedFeed:
    """One connection for many readers of one database.

    Args:
        make_feed: makes the feed that is shared, given whether a change's document is wanted.
        clock: for ages.
        overlap_seconds: how old a position must be before readers may join at it.
        max_lag_bytes: a reader with more waiting bytes leaves.

    Attributes:
        feed: the shared feed; None before the first connection.
        readers: how many readers have registered, whether they have joined or not.
    """

    def __init__(
        self,
        make_feed: Callable[[Callable[[Change], bool]], CouchFeed],
        *,
        clock: Clock,
        overlap_seconds: float,
        max_lag_bytes: int,
    ) -> None:
        self.feed: CouchFeed | None = None
        self.readers = 0
        self._make_feed = make_feed
        self._clock = clock
        self._overlap_seconds = overlap_seconds
        self._max_lag_bytes = max_lag_bytes
        self._subscribers: list[Subscriber] = []
        self._joining: list[Subscriber] = []
        self._holder: object | None = None  # the lone reader whose positions are held
        self._held: deque[JoinPoint] = deque()
        self._began: JoinPoint | None = None
        self._identity: DatabaseIdentity | None = None
        self._restart = Event()
        self._ending = False
        self._greenlet: gevent.Greenlet[[], None] | None = None

    @property
    def size(self) -> int:
        """How many readers have joined, those that are about to join included."""
        return len(self._subscribers) + len(self._joining)

    @property
    def tails(self) -> list[TailKey]:
        """The tails of the readers that have joined."""
        return [subscriber.tail for subscriber in (*self._subscribers, *self._joining)]

    def register(self) -> None:
        """Count a reader, which reads alone until it joins."""
        self.readers += 1

    def unregister(self) -> None:
        """Count one reader less."""
        self.readers -= 1

    def get_alone_seconds(self) -> float:
        """Return how long a reader on its own may follow the head before it reads a page."""
        return ALONE_SECONDS if self.readers > 1 else MAX_LIFE_SECONDS

    def hold(self, reader: object, seq: Seq) -> None:
        """Remember a position of the lone reader: it becomes one of the shared feed."""
        if self._holder is reader and self._greenlet is None:
            self._remember(seq)

    def release(self, reader: object) -> None:
        """Forget the positions of a lone reader that ended without joining."""
        if self._holder is reader and not self.size:
            self._reset()

    def offer(self, reader: object, seq: Seq, asked_at: float) -> JoinPoint | None:
        """Return the position at which a reader may join; None if it may not join yet.

        Args:
            reader: at the head.
            seq: its own position.
            asked_at: when it sent the request whose response it has read to the end.
        """
        if not self.size:
            return self._offer_to_open(reader, seq)
        old_enough = asked_at - self._overlap_seconds
        for held in reversed(self._held):
            if held.at <= old_enough:
                return held
            if held.seq == seq:
                return replace(held, exact=True)
        return None

    def join(
        self,
        held: JoinPoint,
        identity: DatabaseIdentity | None,
        wants: Callable[[Change], bool],
        tail: TailKey = NO_TAIL,
    ) -> Subscriber:
        """Add a reader, which takes part from the next request on."""
        subscriber = Subscriber(held, identity, wants, self._max_lag_bytes, tail)
        self._joining.append(subscriber)
        if self._greenlet is None:
            self._ending = False
            self._began = None
            self._greenlet = gevent.spawn(self._read)
        elif len(self._joining) == 1:
            gevent.spawn(self._gather, self._restart)
        return subscriber

    def drain(self) -> bool:
        """End the connection in good order, unless another reader needs it; return whether it ends."""
        if self.size > 1:
            return False
        self._ending = True
        self._restart.set()
        return True

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a reader; the last one closes the connection."""
        for subscribers in (self._subscribers, self._joining):
            if subscriber in subscribers:
                subscribers.remove(subscriber)
        if not self.size and self._greenlet is not None:
            greenlet, self._greenlet = self._greenlet, None
            self._reset()
            greenlet.kill()

    def _offer_to_open(self, reader: object, seq: Seq) -> JoinPoint | None:
        """Return the lone reader's own position once another reader has registered.

        Only the lone reader may open the connection: the positions held are those of its reading, and
        another one may not have seen what they cover.
        """
        if self._holder is None:
            self._holder = reader
        if self._holder is not reader:
            return None
        self._remember(seq)
        return JoinPoint(self._clock.monotonic(), seq) if self.readers > 1 else None

    def _gather(self, restart: Event) -> None:
        self._clock.wait(restart, GATHER_SECONDS)
        restart.set()

    def _wants(self, change: Change) -> bool:
        return any(subscriber.wants(change) for subscriber in self._subscribers)

    def _read(self) -> None:
        """Read until no reader is left, request after request; each one adds the readers that joined."""
        self.feed = self._make_feed(self._wants)
        try:
            with closing(self.feed):
                while self.size and not self._ending:
                    since = self._add_joining()
                    self._read_from(since, self.feed)
        except FatalError:
            pass  # each reader reads on alone, and gets the error from the server
        finally:
            if self._greenlet is gevent.getcurrent():  # else it was ended, and another one may be running
                for subscriber in [*self._subscribers, *self._joining]:
                    subscriber.leave()
                self._subscribers, self._joining = [], []
                self._greenlet = None
                self._reset()

    def _add_joining(self) -> Seq:
        """Add the joining readers, and return the oldest position that any reader needs.

        Earlier readers need the position at which their reading began, until it has reached the head. A
        reader whose join position is `exact` can start only there: if another reader needs an older
        position, it continues to read alone.
        """
        if self._joining:
            needed = [subscriber.held for subscriber in self._joining]
            self._began = min([*needed, self._began or needed[0]], key=lambda held: held.at)
            self._remember(self._began.seq)
        everybody = [*self._subscribers, *self._joining]
        self._subscribers = [subscriber for subscriber in everybody if self._may_begin(subscriber)]
        self._joining = []
        self._identity = next((each.identity for each in self._subscribers if each.identity), self._identity)
        self._restart = Event()
        return self._held[-1].seq

    def _may_begin(self, subscriber: Subscriber) -> bool:
        held = subscriber.held
        if self._began is None or not held.exact or held.seq == self._began.seq:
            return True
        subscriber.leave()
        return False

    def _read_from(self, since: Seq, feed: CouchFeed) -> None:
        with closing(feed.batches(since, self._identity, self._restart)) as batches:
            for batch in batches:
                self._hand_out(batch)

    def _hand_out(self, batch: ChangeBatch) -> None:
        for subscriber in self._subscribers:
            subscriber.put(batch)
        self._subscribers = [subscriber for subscriber in self._subscribers if not subscriber.left]
        if batch.seq is not None:
            self._remember(batch.seq)
        if batch.asked_at is not None:
            self._settle()
        if not self._subscribers:
            self._restart.set()

    def _settle(self) -> None:
        """Note that the head was reached: the readers have seen what every older position covers."""
        self._began = None
        for subscriber in self._subscribers:
            subscriber.held = replace(subscriber.held, exact=False)

    def _remember(self, seq: Seq) -> None:
        """Keep positions some seconds apart, and one that is old enough to join at."""
        now = self._clock.monotonic()
        if len(self._held) > 1 and self._held[-1].at - self._held[-2].at < STEP_SECONDS:
            self._held.pop()
        self._held.append(JoinPoint(now, seq))
        while len(self._held) > 1 and self._held[1].at <= now - self._overlap_seconds - ALONE_SECONDS:
            self._held.popleft()

    def _reset(self) -> None:
        self._holder = None
        self._held.clear()
