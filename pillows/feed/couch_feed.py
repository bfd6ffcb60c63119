"""Reads the changes of a CouchDB database, for ever, under everything a server and a network can do.

Each reading (`pillows.feed.reader`) runs until something goes wrong; the next begins where the
last batch ended that was handed over. Nothing else is remembered, so nothing can be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from gevent.event import Event

from checkpoints import Seq, TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.clock import Clock, SystemClock
from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError
from pillows.couch.options import CouchConnection
from pillows.couch.response import ActivityMonitor, TooLargeError
from pillows.errors import RetryableError
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.feed.bounded_queue import StalledError
from pillows.feed.document_fetcher import fetch_key
from pillows.feed.document_loader import AverageSize
from pillows.feed.fetch_mode import FetchModeTuner
from pillows.feed.options import SourceOptions
from pillows.feed.reader import MAX_LIFE_SECONDS, Hands
from pillows.feed.reader_task import STALLED_SECONDS, Session
from pillows.feed.source_database import SourceDatabase
from pillows.feed.throttle import ConcurrencyLimit, ThrottleWait
from pillows.models import Change, ChangeBatch, Document
from pillows.observer import Observer
from pillows.retry.backoff import Backoff, Patience

#: CouchDB takes no request line beyond 8,000 characters; a token grows with the number of shards
#: (3,248 with 256 of them).
LONG_SEQ = 6000

#: More changes than this in a second nobody writes: CouchDB takes some 4,000 in bulk.
MOST_WRITES_PER_SECOND = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How many changes were behind us.

    Attributes:
        at: monotonic seconds.
        pending: changes.
    """

    at: float
    pending: int

    def went_back_from(self, before: Backlog) -> bool:
        """Whether this is more than writes since `before` can explain.

        CouchDB begins a shard anew when it cannot place a position (a node that was lost, a shard
        that was split): nothing is wrong with what we have, it is only told.
        """
        written = (self.at - before.at + 1.0) * MOST_WRITES_PER_SECOND
        return self.pending - before.pending > written


class CouchFeed:
    """The changes of one database. See `Feed` for what each method promises.

    Args:
        connection: the server.
        source: the database, and how to read it.
        prefilter: whether a change's document is wanted; one that is not comes without body.
            None: all are.
        clock: for waits and ages.
        observer: told of retries and warnings.
        tail: whose feed this is, for the observer.
        couch: a client of the server to share; by default the feed has its own.
        max_life_seconds: how long one response at the head may last before a page is read again.

    Attributes:
        identity: the database that was read last.
    """

    def __init__(
        self,
        connection: CouchConnection,
        source: SourceOptions,
        *,
        prefilter: Callable[[Change], bool] | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        tail: TailKey = NO_TAIL,
        couch: CouchClient | None = None,
        max_life_seconds: float = MAX_LIFE_SECONDS,
    ) -> None:
        self.identity: DatabaseIdentity | None = None
        self._clock = clock or SystemClock()
        self._observer = observer or Observer()
        self._tail = tail
        self._failed: str | None = None
        self._throttled: str | None = None
        self._couch = couch or CouchClient(connection, clock=self._clock)
        self._couch.acquire()
        self._open = True
        self._max_life_seconds = max_life_seconds
        self._drain_seconds = connection.timeouts.drain
        self._options = source
        self._prefilter = prefilter
        self._activity = ActivityMonitor(self._clock)
        self._source = SourceDatabase(
            self._couch, source, self._activity, str(self._tail), self._on_throttled
        )
        self._backlog: Backlog | None = None
        self._told_long = False
        self._limit = ConcurrencyLimit(connection.fetches)
        self._choice = FetchModeTuner()
        self._sizes = AverageSize()
        self._documents = self._source.documents(self._limit)

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte; None before the first."""
        return self._activity.at

    @property
    def trouble(self) -> str | None:
        """Why the feed is waiting to try again; None while it is well."""
        return self._failed or self._throttled

    def identify(self) -> DatabaseIdentity:
        """Asks which database this is; one attempt."""
        return self._source.identify()

    def mark(self) -> bool:
        """Marks the database, where that was asked for; one attempt."""
        if self._options.identity_token:
            self._source.mark()
        return self._options.identity_token

    def start(self) -> Seq:
        """Where a tail without a checkpoint begins; one attempt."""
        since = self._options.since
        if since == "beginning":
            return Seq.BEGINNING
        if since == "now":
            # A token is needed at once: `now` again after a crash would skip what came between.
            return self._source.probe("now").seq
        return Seq.of(since)

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """A fresh read of documents' versions, by a quorum."""
        return self._documents.read_versions(ids)

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """The documents' state of now, with their bodies; one attempt.

        An id that the database does not know is a deleted document of version 0.
        """
        asked = [Change(id=id, revs=("0-",), leaf_version=0) for id in ids]
        found = self._documents.read_current(asked)
        return [found[fetch_key(change)] for change in asked]

    def fetch(self, change: Change) -> Document:
        """Fetches the document of a change that came without one; one attempt."""
        (found,) = self._documents.fill([change]).values()
        return Document(
            id=found.id, rev=found.rev, leaf_version=found.leaf_version, deleted=found.deleted, raw=found.raw
        )

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Reads an attachment; one attempt. No more than `max_bytes` are taken from the line."""
        path = f"{self._couch.path(self._options.database, id, name)}?rev={quote(rev)}"
        try:
            with self._couch.open("GET", path, activity=self._activity) as answer:
                return answer.read(max_bytes)
        except TooLargeError:
            return None
        except RejectedError as error:
            if error.status != 404:
                raise
            return None  # a later change has replaced it, and comes too

    def pending(self, since: Seq) -> int | None:
        """How many changes are behind `since`, as the server says."""
        return self._source.probe(since.query).pending

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Changes after `since`, for ever, until `stop` is set."""
        patience, ends = Patience(), Backoff()
        purge_seq = identity.purge_seq if identity else None
        while not stop.is_set():
            reading = Session(self._hands(ends, stop), since, identity, self._options.queue)
            try:
                for batch in reading.batches(self._drain_seconds):
                    purge_seq = batch.purge_seq or purge_seq
                    self.identity = _known(reading.identity, purge_seq)
                    if batch.seq is not None:
                        since = batch.seq
                        self._failed = None
                        patience.reset()
                        self._suspect_rewind(batch)
                        self._tell_long(since)
                    yield batch
            except StalledError:
                self._warn("source.stalled", {"seconds": STALLED_SECONDS})
            except RetryableError as error:
                yield from self._pause(error, patience, stop)
            finally:
                reading.close()
                identity = self.identity = _known(reading.identity, purge_seq)

    def close(self) -> None:
        """Closes every connection. May be called twice."""
        if self._open:
            self._open = False
            self._couch.release()

    def _hands(self, ends: Backoff, stop: Event) -> Hands:
        return Hands(
            source=self._source,
            stop=stop,
            clock=self._clock,
            prefilter=self._wants,
            warn=self._warn,
            sizes=self._sizes,
            limit=self._limit,
            choice=self._choice,
            backoff=ends,
            max_life_seconds=self._max_life_seconds,
        )

    def _pause(self, error: RetryableError, patience: Patience, stop: Event) -> Iterator[ChangeBatch]:
        """Waits before the next try, with signs of life."""
        delay_seconds = patience.after(error)
        self._failed = str(error)
        self._tell_retry(self._failed, patience.attempts, delay_seconds)
        until = self._clock.monotonic() + delay_seconds
        yield SIGN_OF_LIFE
        while (left := until - self._clock.monotonic()) > 0:
            if self._clock.wait(stop, min(left, TICK_SECONDS)):
                return
            yield SIGN_OF_LIFE

    def _on_throttled(self, told: ThrottleWait | None) -> None:
        """A fetch of documents waits, or waits no more."""
        self._throttled = told.error if told else None
        if told:
            self._tell_retry(told.error, told.attempt, told.delay_seconds)

    def _tell_retry(self, error: str, attempt: int, delay_seconds: float) -> None:
        self._observer.retry(
            self._tail, where="source", error=error, attempt=attempt, delay_seconds=delay_seconds
        )

    def _wants(self, change: Change) -> bool:
        """Whether a document must be fetched; if the filter cannot say, the pipeline will say why."""
        try:
            return self._prefilter is None or self._prefilter(change)
        except Exception:  # noqa: BLE001 - a user's code: it fails again in the pipeline, as a dead letter
            return True

    def _suspect_rewind(self, batch: ChangeBatch) -> None:
        """Tells when more came to be behind us than anybody can have written meanwhile."""
        if batch.pending is None:
            return
        now = Backlog(at=self._clock.monotonic(), pending=batch.pending + len(batch.changes))
        if self._backlog is not None and now.went_back_from(self._backlog):
            reason = f"{now.pending} changes are behind, {self._backlog.pending} were a moment ago"
            self._observer.rewind(self._tail, reason=reason)
        self._backlog = replace(now, pending=batch.pending)

    def _tell_long(self, since: Seq) -> None:
        if len(since.query) > LONG_SEQ and not self._told_long:
            self._told_long = True
            self._warn("source.long_position", {"characters": len(since.query), "at_most": 8000})

    def _warn(self, event: str, details: Mapping[str, object]) -> None:
        self._observer.warning(self._tail, event=event, details=details)


def _known(found: DatabaseIdentity | None, purge_seq: str | None) -> DatabaseIdentity | None:
    """Which database this is, but no purge whose documents were not handed over: they are told again."""
    return replace(found, purge_seq=purge_seq) if found and purge_seq else found
