"""Read a database into its topic. Consumers of committed messages see each change exactly once.

A transaction holds a page of changes and the position after them. A reader first fences its predecessor
(`init_transactions`) and then reads the position, so the predecessor cannot write a later one. A reader that
wakes up after an hour can't commit any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Seq, TailKey
from pillows.change_topics.page_writer import Destination, PageWriter
from pillows.change_topics.pages import Pages, Piece
from pillows.change_topics.positions import Position, load_position
from pillows.clock import Clock
from pillows.errors import InvalidSeqError, RecreatedError, RetryableError
from pillows.feed.base import TICK_SECONDS
from pillows.feed.couch_feed import CouchFeed
from pillows.kafka.producer import Producer
from pillows.observer import Observer, Rewind
from pillows.progress.watermark import WatermarkMove
from pillows.retry.backoff import Backoff
from pillows.runtime.status import State, TailStatus
from pillows.runtime.tail_monitor import TailMonitor

#: Least time between the starts of two pages, unless a page is full: a transaction costs the brokers as much
#: with one change as with a thousand. The first change after a silence does not wait.
PAGE_SECONDS = 0.2
#: What is retried, for the observer and the status.
_OPERATION = "changes"


class Reader:
    """Reads one database until it is stopped.

    Args:
        key: the reader, as a tail.
        destination: where the changes go.
        make_feed: makes a new feed for each attempt.
        clock: for waits and ages.
        observer: receives states and retries.
    """

    def __init__(
        self,
        key: TailKey,
        destination: Destination,
        make_feed: Callable[[], CouchFeed],
        *,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._key = key
        self._to = destination
        self._make_feed = make_feed
        self._clock = clock
        self._observer = observer
        self._monitor = TailMonitor(key, clock, observer)
        self._position = Position()
        self._saved_at: float | None = None
        self._last_byte_at: float | None = None
        self._begins_anew = self._is_recreated = False

    @property
    def state(self) -> State:
        """The state."""
        return self._monitor.state

    @property
    def ticked_at(self) -> float:
        """Monotonic seconds of the last sign of life."""
        return self._monitor.ticked_at

    def run(self, stop: Event) -> None:
        """Read until `stop` is set, then write the changes that were read.

        Raises:
            FatalError: it cannot continue, for example because another reader has taken over (`FencedError`).
        """
        backoff = Backoff()
        while not stop.is_set():
            try:
                self._read(stop, backoff)
            except RecreatedError as error:
                # The pillows decide whether to follow; each record names the database that it belongs to.
                self._observer.rewind(self._key, kind=Rewind.RECREATED, reason=str(error))
                self._is_recreated = True
            except InvalidSeqError as error:
                if self._position.seq == Seq.BEGINNING:
                    raise
                # Records that were already written do no harm.
                self._observer.rewind(self._key, kind=Rewind.REPEATED, reason=error.detail)
                self._begins_anew = True
            except RetryableError as error:
                self._pause(error, backoff, stop)
        self._monitor.enter(State.STOPPED)

    def status(self) -> TailStatus:
        """Return its current status."""
        now, lag = self._clock.monotonic(), self._monitor.lag
        return TailStatus(
            pillow=self._key.pillow,
            source=self._key.source,
            state=self.state,
            reason=self._monitor.reason,
            seq=str(self._position.seq),
            changes=self._position.ordinal,
            pending=self._monitor.pending,
            lag_seconds=lag.seconds(None),
            changes_per_second=lag.changes_per_second,
            last_byte_age_seconds=None if self._last_byte_at is None else now - self._last_byte_at,
            checkpoint_age_seconds=None if self._saved_at is None else now - self._saved_at,
        )

    def _read(self, stop: Event, backoff: Backoff) -> None:
        """Read until `stop` is set; a failure is not retried.

        Raises:
            PillowError: see `run`.
        """
        self._monitor.start()
        transactional_id = self._to.topics.reader_id(self._key.source)
        with (
            closing(Producer(self._to.connection, transactional_id)) as producer,
            closing(self._make_feed()) as feed,
        ):
            writer = PageWriter(producer, self._to)
            writer.create_topics()
            producer.fence()
            self._position = self._find_position(feed)
            self._monitor.note_trouble(_OPERATION, "")
            batches = feed.batches(self._position.seq, self._position.identity, stop)
            with closing(Pages(batches, lambda: feed.identity)) as pages:
                while (pieces := pages.take(TICK_SECONDS)) is not None:
                    began_at = self._clock.monotonic()
                    self._note_read(pieces, feed)
                    if not all(each.batch.is_sign_of_life for each in pieces):
                        self._position = writer.write(pieces, self._position)
                        self._note_written(pieces)
                        backoff.reset()
                    pages.wait_until_full(max(0.0, began_at + PAGE_SECONDS - self._clock.monotonic()))

    def _find_position(self, feed: CouchFeed) -> Position:
        """Return the position to begin at. Call this after fencing the former reader."""
        found = load_position(self._to.connection, self._to.topics, self._key.source) or Position()
        if self._begins_anew:
            found = replace(found, seq=Seq.BEGINNING)
        if self._is_recreated or found.identity is None:
            identity = replace(feed.identify(), marked=True) if feed.mark() else None
            found = replace(found, seq=Seq.BEGINNING, identity=identity, missed_at="")
        return found

    def _note_read(self, pieces: Sequence[Piece], feed: CouchFeed) -> None:
        self._monitor.tick()
        self._last_byte_at = feed.last_byte_at
        for piece in pieces:
            self._monitor.note_batch(piece.batch, feed.trouble, feed.last_byte_at)

    def _note_written(self, pieces: Sequence[Piece]) -> None:
        self._begins_anew = self._is_recreated = False
        self._saved_at = self._clock.monotonic()
        self._monitor.note_move(
            WatermarkMove(
                changes=sum(len(piece.batch.changes) for piece in pieces),
                caught_up=any(piece.batch.caught_up for piece in pieces),
            )
        )

    def _pause(self, error: RetryableError, backoff: Backoff, stop: Event) -> None:
        """Wait before the next attempt, with signs of life."""
        delay_seconds = backoff.after(error)
        self._monitor.note_trouble(_OPERATION, str(error))
        self._observer.retry(
            self._key,
            where=_OPERATION,
            error=str(error),
            attempt=backoff.attempts,
            delay_seconds=delay_seconds,
        )
        until = self._clock.monotonic() + delay_seconds
        while (left := until - self._clock.monotonic()) > 0:
            self._monitor.tick()
            if self._clock.wait(stop, min(left, TICK_SECONDS)):
                return
