"""Read the changes of a CouchDB database forever, whatever a server and a network do.

Each reading runs until something fails. The next one begins where the last batch that was handed over ended.
No other state survives, so no change can be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import ClassVar
from urllib.parse import quote

from gevent.event import Event
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Seq, TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.clock import Clock, SystemClock
from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError
from pillows.couch.http.response import ActivityMonitor, TooLargeError
from pillows.couch.options import CouchConnection
from pillows.errors import PermanentError, RetryableError
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.feed.catch_up import CatchUp, GroupedCatchUp
from pillows.feed.doc_id_groups import GROUP_IDS, DocIdGroups
from pillows.feed.documents.fetcher import FetchKey, fetch_key
from pillows.feed.documents.loader import AverageSize, DocumentLoader
from pillows.feed.documents.throttle import ConcurrencyLimit, ThrottleWait
from pillows.feed.follow import MAX_LIFE_SECONDS, Follower
from pillows.feed.identity_check import IdentityCheck
from pillows.feed.listing import LISTED, Listing, ListingPosition
from pillows.feed.options import SourceOptions
from pillows.feed.reader_task import STALLED_SECONDS, ReadCursor, ReaderTask, StalledError
from pillows.feed.source_database import SourceDatabase
from pillows.models import Change, ChangeBatch, Document
from pillows.observer import Observer, Rewind
from pillows.retry.backoff import Backoff
from pillows.user_code import confine

#: Pause between two requests of a filtered feed: at its head CouchDB would scan without sending a position.
POLL_SECONDS = 10.0

#: Length of a position, in characters, that causes a warning. CouchDB accepts request lines of up to 8,000; a
#: position grows with the number of shards (3,248 characters with 256 shards).
LONG_SEQ = 6000

#: Highest plausible write rate, in changes per second: CouchDB accepts about 4,000 in bulk.
MAX_WRITES_PER_SECOND = 10_000


class Backlog(Struct, frozen=True, kw_only=True):
    """How many changes followed a position.

    Attributes:
        at: monotonic seconds.
        pending: changes.
    """

    at: float
    pending: int

    def is_rewound_from(self, before: Backlog) -> bool:
        """Return whether the backlog has grown by more than writes since `before` can explain.

        CouchDB reads a shard from its beginning if it cannot find a position (a node was lost, a shard was
        split). The target stays correct, so this is only reported.
        """
        possible = (self.at - before.at + 1.0) * MAX_WRITES_PER_SECOND
        return self.pending - before.pending > possible


class CouchFeed:
    """The changes of one database. See `Feed` for the contract of each method.

    Args:
        connection: the server.
        source: the database, and how to read it.
        prefilter: whether a change's document is wanted; an unwanted one comes without JSON. None: all are.
        clock: for waits and ages.
        observer: receives retries and warnings.
        tail: the tail that reads, for the observer.
        couch: a client of the server to share; by default the feed has its own.
        get_max_life_seconds: returns how long one response at the head may last before a page is read.

    Attributes:
        identity: the database that was read last.
    """

    #: What sends the requests to the database.
    DATABASE: ClassVar[type[SourceDatabase]] = SourceDatabase

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
        get_max_life_seconds: Callable[[], float] = lambda: MAX_LIFE_SECONDS,
    ) -> None:
        self.identity: DatabaseIdentity | None = None
        self._clock = clock or SystemClock()
        self._observer = observer or Observer()
        self._tail = tail
        self._failure: str | None = None
        self._throttled: str | None = None
        self._couch = couch or CouchClient(connection, clock=self._clock)
        self._couch.acquire()
        self._is_open = True
        self._drain_seconds = connection.timeouts.drain
        self._options = source
        self._prefilter = prefilter
        self._activity = ActivityMonitor(self._clock)
        self._source = self.DATABASE(self._couch, source, self._activity, str(self._tail), self._on_throttled)
        self._backlog: Backlog | None = None
        self._warned_of_long_position = False
        self._limit = ConcurrencyLimit(connection.fetches)
        self._sizes = AverageSize()
        self._fetcher = self._source.create_fetcher(self._limit)
        self._catch_up = CatchUp(self._source, self._clock, self._sizes)
        self._listing = Listing(self._source, self._clock)
        self._follower = Follower(
            self._source, self._clock, warn=self._warn, get_max_life_seconds=get_max_life_seconds
        )

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte; None before the first."""
        return self._activity.at

    @property
    def trouble(self) -> str | None:
        """Why the feed waits for a retry; None if it does not."""
        return self._failure or self._throttled

    def identify(self) -> DatabaseIdentity:
        """Read the database's identity; a failure is not retried."""
        return self._source.identify()

    def mark(self) -> bool:
        """Write our identity token to the database, if that is configured; a failure is not retried."""
        if self._options.identity_token:
            self._source.mark()
        return self._options.identity_token

    def start(self) -> Seq:
        """Return where a tail without a checkpoint begins; a failure is not retried."""
        since = self._options.since
        if since == "beginning":
            return Seq.BEGINNING
        if since == "now":
            # Resolve `now` at once: after a crash, a later `now` would skip the changes in between.
            return self._source.probe("now").seq
        return Seq.of(since)

    def find_first(self) -> Seq:
        """Return where a pass into empty outputs begins; a failure is not retried."""
        return self._listing.find_first()

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Read documents' leaf versions, by a quorum."""
        return self._fetcher.read_versions(ids)

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """Read the documents' current state with their JSON; a failure is not retried.

        An id that the database does not know is a deleted document of version 0.
        """
        changes = [Change(id=id, revs=("0-",), leaf_version=0) for id in ids]
        found = self._fetcher.read_current(changes)
        return [found[fetch_key(change)] for change in changes]

    def fetch(self, change: Change) -> Document:
        """Fetch the document of a change that came without one; a failure is not retried.

        Raises:
            PermanentError: it can't be read.
        """
        (found,) = self._fetcher.fill([change]).values()
        if found.defect:
            raise PermanentError(found.defect)
        return Document(
            id=found.id,
            rev=found.rev,
            leaf_version=found.leaf_version,
            deleted=found.deleted,
            raw=found.raw,
        )

    def load(self, changes: Sequence[Change], identity: DatabaseIdentity | None) -> list[Change]:
        """Return changes with the documents that are wanted, as `batches` hands them over.

        A failure is not retried.

        Args:
            changes: in order, from another reader of this database.
            identity: of the database that they belong to.

        Raises:
            RecreatedError: the database is another one.
            PillowError: as `SourceLookup`.
        """
        pieces: list[ChangeBatch] = []
        check = IdentityCheck(self._source, self._fetcher, identity, put=pieces.append, warn=self._warn)
        with closing(self._make_loader(partial(self._fetch, check), pieces.append)) as loader:
            loader.add(ChangeBatch(changes=changes, seq=None))
            loader.drain()
        return [change for piece in pieces for change in piece.changes]

    def load_current(self, changes: Sequence[Change], identity: DatabaseIdentity | None) -> list[Change]:
        """Return changes to the present state of their documents, with the documents that are wanted.

        A document that the database does not know is deleted, in the version of the given change. A failure
        is not retried.

        Args:
            changes: what was noted of a reading of this database at any time.
            identity: of the database that they belong to.

        Raises:
            RecreatedError: the database is another one.
            PillowError: as `SourceLookup`.
        """
        pieces: list[ChangeBatch] = []
        with closing(self._make_loader(self._fetcher.read_current, pieces.append)) as loader:
            loader.add(ChangeBatch(changes=changes, seq=None))
            loader.drain()
        # Not before: the changes read so far belong to the database that is identified here.
        IdentityCheck(self._source, self._fetcher, identity, put=pieces.append, warn=self._warn).confirm()
        return [change for piece in pieces for change in piece.changes]

    @property
    def documents_at_once(self) -> int:
        """How many documents are worth one call of `load_current`: a few requests, some megabytes."""
        return self._sizes.group * self._limit.requests

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Read an attachment, at most `max_bytes` of it; a failure is not retried."""
        path = f"{self._couch.path(self._options.database, id, name)}?rev={quote(rev)}"
        try:
            with self._couch.open("GET", path, expects_json=False, activity=self._activity) as response:
                return response.read(max_bytes)
        except TooLargeError:
            return None
        except RejectedError as error:
            if error.status != 404:
                raise
            return None  # a later change has replaced it, and arrives too

    def pending(self, since: Seq) -> int | None:
        """Return how many changes follow `since`, as reported by the server; None in a listing."""
        if since.json.startswith(LISTED):
            return None
        return self._source.probe(since.query).pending

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Yield the changes after `since`, forever, until `stop` is set."""
        backoff = Backoff()
        purge_seq = identity.purge_seq if identity else None
        while not stop.is_set():
            task = self._create_task(since, identity, stop)
            try:
                for batch in task.batches(self._drain_seconds):
                    purge_seq = batch.purge_seq or purge_seq
                    self.identity = _keep_purge_seq(task.cursor.identity.identity, purge_seq)
                    if batch.seq is not None:
                        since = batch.seq
                        if self._failure is not None:
                            self._failure = None
                            backoff.reset()
                        self._report_position(batch, since)
                    yield batch
            except StalledError:
                self._warn("source.stalled", {"seconds": STALLED_SECONDS})
            except RetryableError as error:
                yield from self._wait_before_retry(error, backoff, stop)
            finally:
                task.close()
                identity = self.identity = _keep_purge_seq(task.cursor.identity.identity, purge_seq)

    def close(self) -> None:
        """Close every connection. May be called twice."""
        if self._is_open:
            self._is_open = False
            self._couch.release()

    # --- one reading

    def _create_task(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> ReaderTask:
        return ReaderTask(
            partial(self._make_cursor, since, identity, stop),
            self._read,
            activity=self._activity,
            clock=self._clock,
            max_bytes=self._options.queue,
        )

    def _make_cursor(
        self,
        since: Seq,
        identity: DatabaseIdentity | None,
        stop: Event,
        put: Callable[[ChangeBatch], None],
    ) -> ReadCursor:
        check = IdentityCheck(self._source, self._fetcher, identity, put=put, warn=self._warn)
        loader = self._make_loader(partial(self._fetch, check), put)
        return ReadCursor(since, stop, check, loader, put, self._wants)

    def _make_loader(
        self,
        fetch: Callable[[Sequence[Change]], dict[FetchKey, Change]],
        put: Callable[[ChangeBatch], None],
    ) -> DocumentLoader:
        return DocumentLoader(fetch, put, wants=self._wants, limit=self._limit, sizes=self._sizes)

    def _read(self, cursor: ReadCursor) -> None:
        """Read until a stop is requested."""
        ids = self._options.doc_ids or ()
        catch_up: CatchUp | GroupedCatchUp = self._catch_up
        if len(ids) > GROUP_IDS:
            groups = DocIdGroups(ids, self._options.join_overlap)
            catch_up = GroupedCatchUp(self._source, self._clock, groups)
        with cursor.identity.repeat():
            if (position := ListingPosition.parse(cursor.since)) is not None:
                self._listing.run(cursor, position)
            while not cursor.stop.is_set():
                catch_up.run(cursor)
                if self._options.is_filtered_by_server:
                    self._clock.wait(cursor.stop, POLL_SECONDS)
                else:
                    self._follower.run(cursor)

    def _fetch(self, check: IdentityCheck, changes: Sequence[Change]) -> dict[FetchKey, Change]:
        """Return changes with their documents; check the database's identity if one differs from its row."""
        is_listed = not all(change.leaf_version for change in changes)
        needs_current = self._options.is_filtered_by_server or is_listed
        fetch = self._fetcher.read_current if needs_current else self._fetcher.fill
        found = fetch(changes)
        current = (found[fetch_key(change)] for change in changes)
        if any(one.deleted or one.revs != change.revs for one, change in zip(current, changes, strict=True)):
            check.confirm()
        return found

    def _wants(self, change: Change) -> bool:
        """Return whether a document must be fetched; if the filter fails, the pipeline reports that."""
        try:
            return self._prefilter is None or self._prefilter(change)
        except BaseException as error:  # noqa: BLE001 - a user's code: it fails again in the pipeline
            confine(error)
            return True

    # --- what the operator sees

    def _wait_before_retry(
        self, error: RetryableError, backoff: Backoff, stop: Event
    ) -> Iterator[ChangeBatch]:
        """Wait before the feed reconnects, with signs of life. The delays are `Backoff`'s."""
        delay_seconds = backoff.after(error)
        self._failure = str(error)
        self._report_retry(self._failure, backoff.attempts, delay_seconds)
        until = self._clock.monotonic() + delay_seconds
        yield SIGN_OF_LIFE
        while (left := until - self._clock.monotonic()) > 0:
            if self._clock.wait(stop, min(left, TICK_SECONDS)):
                return
            yield SIGN_OF_LIFE

    def _on_throttled(self, wait: ThrottleWait | None) -> None:
        self._throttled = wait.error if wait else None
        if wait:
            self._report_retry(wait.error, wait.attempt, wait.delay_seconds)

    def _report_retry(self, error: str, attempt: int, delay_seconds: float) -> None:
        self._observer.retry(
            self._tail, where="source", error=error, attempt=attempt, delay_seconds=delay_seconds
        )

    def _report_position(self, batch: ChangeBatch, since: Seq) -> None:
        """Report a rewound source, and a position that is nearly too long for a request."""
        if batch.pending is not None:
            backlog = Backlog(at=self._clock.monotonic(), pending=batch.pending + len(batch.changes))
            if self._backlog is not None and backlog.is_rewound_from(self._backlog):
                reason = f"{backlog.pending} changes are behind, {self._backlog.pending} were a moment ago"
                self._observer.rewind(self._tail, kind=Rewind.REPEATED, reason=reason)
            self._backlog = replace(backlog, pending=batch.pending)
        # A character takes three at most in a request.
        if (
            3 * len(since.json) > LONG_SEQ
            and not self._warned_of_long_position
            and len(since.query) > LONG_SEQ
        ):
            self._warned_of_long_position = True
            self._warn("source.long_position", {"characters": len(since.query), "at_most": 8000})

    def _warn(self, event: str, details: Mapping[str, object]) -> None:
        self._observer.warning(self._tail, event=event, details=details)


def _keep_purge_seq(found: DatabaseIdentity | None, purge_seq: str | None) -> DatabaseIdentity | None:
    """Return the identity without purges that were not handed over yet, so that they are reported again."""
    return replace(found, purge_seq=purge_seq) if found and purge_seq else found
