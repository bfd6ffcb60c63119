"""A feed of one database that ends at the head, or when the turn is over."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import ClassVar

from gevent.event import Event

from checkpoints import Seq, TailKey
from pillows.couch.client import CouchClient
from pillows.errors import PurgesMissedError
from pillows.feed.base import SIGN_OF_LIFE, DatabaseIdentity
from pillows.feed.batch_cutter import BatchCutter, merge_batches
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.documents.throttle import ConcurrencyLimit
from pillows.feed.identity_check import IdentityCheck
from pillows.feed.options import SourceOptions
from pillows.feed.parsing.changes_parser import PageParser
from pillows.feed.reader_task import ReadCursor
from pillows.feed.requests import INTERVAL, Page, page_query
from pillows.feed.source_database import SourceDatabase, require_complete
from pillows.models import Change, ChangeBatch
from pillows.observer import Observer

#: Limits of one turn, so that the next database gets its turn.
MAX_CHANGES = 10_000
MAX_SECONDS = 10.0

#: The most that a database's first turn reads at once, and holds in memory.
FIRST_CHANGES = 2 * INTERVAL
FIRST_BYTES = 2 * 2**20

#: How often the feed looks whether it may end.
_BUSY_SECONDS = 0.02


class _MemberDatabase(SourceDatabase):
    """A database of a known server. One request is enough to identify it."""

    def identify(self) -> DatabaseIdentity:
        return self.info(None)


class TurnFeed(CouchFeed):
    """Reads page after page, and ends at the head.

    Args:
        couch: a client of the server.
        source: the database, and how to read it.
        prefilter: see `CouchFeed`.
        observer: receives warnings.
        tail: the database's tail.
        limit: limits the concurrent `_bulk_get` requests of all databases together.
        found: the description of the database from a moment ago. If it is the database of the checkpoint, one
            request is enough to find no changes, or to read a small database from its beginning.
        is_busy: returns whether something else still needs the feed, so that it must not end; its argument
            says whether the turn's time is over.

    Attributes:
        head: set once the head was reached.
    """

    DATABASE: ClassVar[type[SourceDatabase]] = _MemberDatabase

    def __init__(
        self,
        couch: CouchClient,
        source: SourceOptions,
        *,
        prefilter: Callable[[Change], bool] | None,
        observer: Observer,
        tail: TailKey,
        limit: ConcurrencyLimit,
        found: DatabaseIdentity | None = None,
        is_busy: Callable[[bool], bool] = lambda _: False,
    ) -> None:
        super().__init__(
            couch.connection,
            source,
            prefilter=prefilter,
            clock=couch.clock,
            observer=observer,
            tail=tail,
            couch=couch,
        )
        self.head = Event()
        self._found = found
        self._is_busy = is_busy
        self._limit = limit
        self._fetcher = self._source.create_fetcher(limit)

    def identify(self) -> DatabaseIdentity:
        """Return the database's identity, from the sweep a moment ago or from a new request."""
        return self._found or super().identify()

    def find_first(self) -> Seq:
        """Return the beginning: few databases are so large that a listing would be faster."""
        return Seq.BEGINNING

    def read_first(self) -> ChangeBatch | None:
        """Return the first page of changes with their documents, read in this greenlet.

        The database must not be filtered by the server. Everything is of one database, as in `_make_cursor`.

        Returns:
            None if the page is too large, or lacks documents: then `batches` is the way.

        Raises:
            RetryableError: the server is away or busy, or the answer was cut off.
            FatalError: as `Feed.batches`.
        """
        options, pieces = self._options, list[ChangeBatch]()
        page = Page(limit=FIRST_CHANGES, interval=INTERVAL, include_docs=True)
        cutter = BatchCutter(skip_design=options.skip_design, is_page=True)
        parser, asked_at = PageParser(options.max_document), self._clock.monotonic()
        query = page_query(options, Seq.BEGINNING, page)
        with self._source.changes(query, silent_seconds=options.timeout) as response:
            for block in response.blocks():
                for change, size_bytes in parser.feed(block):
                    if (piece := cutter.add(change, size_bytes)) is not None:
                        pieces.append(piece)
                if cutter.read_bytes > FIRST_BYTES:
                    return None
        end = require_complete(parser)
        caught_up = cutter.rows < page.limit if end.pending is None else end.pending == 0
        last = cutter.end(
            end.seq, caught_up=caught_up, pending=end.pending, asked_at=asked_at if caught_up else None
        )
        batch = merge_batches([*pieces, last])
        if any(each.raw is None and not each.deleted and not each.defect for each in batch.changes):
            return None
        return batch

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Yield the changes after `since`, and end.

        Raises:
            RetryableError: the server is unreachable or busy, or an answer was cut off.
            PurgesMissedError: the source no longer lists some purges.
            FatalError: as `Feed.batches`.
        """
        enough = Event()
        stop.rawlink(lambda _: enough.set())
        until, changes = self._clock.monotonic() + MAX_SECONDS, 0
        task = self._create_task(since, identity, enough)
        try:
            for batch in task.batches(self._drain_seconds):
                if batch.purges_missed:
                    raise PurgesMissedError(f"The source no longer lists {batch.purges_missed} purges.")
                changes += len(batch.changes)
                yield batch
                if changes >= MAX_CHANGES or self._clock.monotonic() >= until:
                    enough.set()
        finally:
            task.close()
        while self._is_busy(self._clock.monotonic() >= until) and not stop.is_set():
            yield SIGN_OF_LIFE
            self._clock.wait(stop, _BUSY_SECONDS)

    def _make_cursor(
        self,
        since: Seq,
        identity: DatabaseIdentity | None,
        stop: Event,
        put: Callable[[ChangeBatch], None],
    ) -> ReadCursor:
        is_known = _is_same(self._found, identity)
        check = _LazyIdentityCheck(self._source, self._fetcher, identity, put=put, warn=self._warn)

        def put_checked(batch: ChangeBatch) -> None:
            # Read from the beginning, all changes are from one database. If it was recreated meanwhile, the
            # next sweep notices.
            if not is_known or (batch.changes and since != Seq.BEGINNING):
                check.check_once()
            put(batch)

        loader = self._make_loader(partial(self._fetch, check), put_checked)
        return ReadCursor(since, stop, check, loader, put_checked, self._wants)

    def _read(self, cursor: ReadCursor) -> None:
        """Read until the head, or until a stop is requested."""
        self._catch_up.run(cursor)
        if not cursor.stop.is_set():
            self.head.set()


def _is_same(found: DatabaseIdentity | None, expected: DatabaseIdentity | None) -> bool:
    """Return whether a description proves that the database is the expected one, without a purge since."""
    if found is None or expected is None or not found.has_start_time:
        return False
    return found.instance_start_time == expected.instance_start_time and not found.purged_since(
        expected.purge_seq
    )


class _LazyIdentityCheck(IdentityCheck):
    """Checks the identity before the first change is yielded, rather than after the first byte."""

    _checked = False

    def check(self) -> None:
        """Do nothing yet: most answers contain no change."""

    def check_once(self) -> None:
        """Check that the response comes from the expected database.

        Raises:
            RecreatedError: it comes from another one.
        """
        if not self._checked:
            self._checked = True
            super().check()
