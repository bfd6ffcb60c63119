"""One reading of a feed: who is this, catch up page by page, then follow the head.

Runs in a greenlet of its own (`pillows.feed.bounded_queue`) until something goes wrong, a stop is asked for,
or the consumer is too slow; whoever started it begins another from the last position handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gevent.event import Event

from checkpoints import Seq
from pillows.clock import Clock
from pillows.couch.response import StreamingResponse
from pillows.errors import RetryableError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.changes_parser import (
    ChangesParser,
    ContinuousParser,
    MalformedFeedError,
    PageParser,
    ResponseEnd,
)
from pillows.feed.doc_id_groups import GROUP_IDS, DocIdGroups
from pillows.feed.document_fetcher import FetchKey, fetch_key
from pillows.feed.document_loader import AverageSize, DocumentLoader
from pillows.feed.fetch_mode import FetchMode, FetchModeTuner
from pillows.feed.identity_check import IdentityCheck
from pillows.feed.proxy_buffering import ProxyBufferingDetector
from pillows.feed.requests import INTERVAL, BatchCutter, Page, page_query, plan_page, tail_query
from pillows.feed.source_database import SourceDatabase, whole
from pillows.feed.throttle import ConcurrencyLimit
from pillows.models import Change, ChangeBatch
from pillows.retry.backoff import Backoff

#: So many changes behind, it is worth finding out how documents come faster (`pillows.feed.fetch_mode`).
FAR_BEHIND = 10_000

#: A response that ends sooner is a server in maintenance or worse.
SHORT_LIFE_SECONDS = 1.0

#: A busy feed never ends by itself; a new request shows whether we still may read.
MAX_LIFE_SECONDS = 1800.0

#: After a short longpoll answer, so that a steady trickle does not cost a request a row.
LINGER_SECONDS = 0.1
LONGPOLL_ROWS = 1000

#: A filtered feed is polled: at its head CouchDB would scan without ever telling a position.
POLL_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What a reading is given to work with.

    Attributes:
        source: where it reads.
        stop: no further request may be sent once it is set.
        clock: for waits and ages.
        prefilter: whether a change's document is wanted.
        warn: tells the operator: an event and its details.
        sizes: how large documents are; outlives the reading.
        limit: how many fetches at a time; outlives the reading.
        choice: how documents come while far behind; outlives the reading.
        backoff: for responses that end at once; outlives the reading.
        max_life_seconds: how long the head is followed before a page is read again.
    """

    source: SourceDatabase
    stop: Event
    clock: Clock
    prefilter: Callable[[Change], bool]
    warn: Callable[[str, Mapping[str, object]], None]
    sizes: AverageSize
    limit: ConcurrencyLimit
    choice: FetchModeTuner
    backoff: Backoff
    max_life_seconds: float = MAX_LIFE_SECONDS


class Reading:
    """Reads on from a position.

    Args:
        hands: what to work with.
        put: takes a batch; blocks while too much waits.
        since: the position.
        identity: the database that it belongs to; None: whichever is there.

    Attributes:
        following: whether the head is being followed; before, pages are read.
    """

    def __init__(
        self,
        hands: Hands,
        put: Callable[[ChangeBatch], None],
        since: Seq,
        identity: DatabaseIdentity | None,
    ) -> None:
        self._put = put
        self.following = False
        self._hands = hands
        self._source = hands.source
        self._options = hands.source.options
        self._since = since
        self._documents = hands.source.documents(hands.limit)
        self._recognition = IdentityCheck(hands.source, self._documents, identity, put=put, warn=hands.warn)
        ids = self._options.doc_ids or ()
        self._ids = DocIdGroups(ids, self._options.join_overlap) if len(ids) > GROUP_IDS else None

    @property
    def identity(self) -> DatabaseIdentity | None:
        """The database that is read."""
        return self._recognition.identity

    def run(self) -> None:
        """Reads until a stop is asked for.

        Raises:
            RetryableError: begin anew, later.
            FatalError: it can't go on.
        """
        while not self._hands.stop.is_set():
            if self._ids is not None:
                self._read_groups(self._ids)
            else:
                self._catch_up()
            if self._options.filtered:
                self._hands.clock.wait(self._hands.stop, POLL_SECONDS)
            else:
                self._follow()

    # --- catching up

    def _catch_up(self) -> None:
        """Reads page after page until nothing is behind the last one."""
        self.following = False
        pending = self._behind()
        loader = self._loader()
        self._hands.choice.begin(self._hands.clock.monotonic())
        try:
            while not self._hands.stop.is_set():
                page = self._plan(pending)
                closing, rows = self._read_page(page, loader)
                if self._at_head(page, closing, rows):
                    break
                self._learn(pending, rows, loader)
                pending = closing.pending
            loader.drain()
        except RetryableError:
            if self._chooses(pending):
                self._hands.choice.fail()
            raise
        finally:
            loader.close()

    def _behind(self) -> int | None:
        """How many changes are behind us, asked where the answer decides anything."""
        if self._options.documents != "auto" or self._options.filtered:
            return None
        return self._source.probe(self._since.query).pending

    def _chooses(self, pending: int | None) -> bool:
        """Whether how documents come is ours to choose, and worth it."""
        return self._options.documents == "auto" and pending is not None and pending > FAR_BEHIND

    def _plan(self, pending: int | None) -> Page:
        options = self._options
        apart = options.documents == "bulk_get" or options.filtered
        if self._chooses(pending):
            apart = self._hands.choice.way is FetchMode.BULK_GET
        return plan_page(options, self._hands.sizes.average_bytes, include_docs=not apart)

    def _learn(self, pending: int | None, rows: int, loader: DocumentLoader) -> None:
        """After a lap waits for all that was asked for, so that its time is its own."""
        choice, clock = self._hands.choice, self._hands.clock
        if not self._chooses(pending):
            choice.begin(clock.monotonic())
        elif choice.counts(rows, clock.monotonic()):
            loader.drain()
            choice.end(clock.monotonic())

    def _at_head(self, page: Page, closing: ResponseEnd, rows: int) -> bool:
        """Whether nothing is behind a page: the server says so, or gave less than it was asked for.

        With a filter `pending` counts what the filter leaves out, so it says nothing.
        """
        if rows == 0 or self._options.filtered:
            return rows < page.limit
        return closing.pending == 0 or (rows < page.limit and closing.pending is None)

    def _read_page(self, page: Page, loader: DocumentLoader) -> tuple[ResponseEnd, int]:
        """Reads one page to its end; returns how it ended and how many rows it had."""
        cutter = BatchCutter(skip_design=self._options.skip_design)
        reader = PageParser()
        query = page_query(self._options, self._since, page)
        asked_at = self._hands.clock.monotonic()
        try:
            with self._source.changes(query, silent_seconds=self._options.timeout) as answer:
                self._recognition.check()
                for block in answer.blocks():
                    for change, size_bytes in reader.feed(block):
                        if (batch := cutter.add(change, size_bytes)) is not None:
                            loader.add(batch)
            closing = whole(reader)
        except RetryableError:
            # What was read in whole is good, and may be all that ever gets through.
            if (cut := cutter.cut()) is not None:
                loader.add(cut)
            loader.drain()
            raise
        if page.include_docs:
            self._hands.sizes.saw(cutter.rows, cutter.read_bytes)
        at_head = self._at_head(page, closing, cutter.rows)
        last = cutter.end(closing.seq, caught_up=at_head, pending=closing.pending)
        loader.add(replace(last, asked_at=asked_at) if at_head else last)
        self._since = closing.seq
        return closing, cutter.rows

    def _loader(self) -> DocumentLoader:
        hands = self._hands
        return DocumentLoader(
            self._fetch, self._put, wants=hands.prefilter, limit=hands.limit, sizes=hands.sizes
        )

    def _fetch(self, changes: Sequence[Change]) -> dict[FetchKey, Change]:
        """Changes with their documents; what is not as its row says may be another database's."""
        found = (self._documents.read_current if self._options.filtered else self._documents.fill)(changes)
        now = (found[fetch_key(change)] for change in changes)
        if any(one.deleted or one.revs != change.revs for one, change in zip(now, changes, strict=True)):
            self._recognition.confirm()
        return found

    # --- more ids than one request may name

    def _read_groups(self, ids: DocIdGroups) -> None:
        """Asks for each group of ids from the same position, and moves that when it may move."""
        clock, loader = self._hands.clock, self._loader()
        began_at = clock.monotonic()
        try:
            for number, group in enumerate(ids.groups):
                if self._hands.stop.is_set():
                    return
                changes, closing = self._read_group(group)
                if number == 0:
                    ids.hold(clock.monotonic(), closing.seq)
                loader.add(ChangeBatch(changes=ids.news(changes), seq=None))
            self._since = ids.covered(began_at) or self._since
            loader.add(ChangeBatch(changes=(), seq=self._since, caught_up=True))
            loader.drain()
        finally:
            loader.close()

    def _read_group(self, ids: Sequence[str]) -> tuple[list[Change], ResponseEnd]:
        """All that the feed has of some ids: each has one row at most, so one answer holds them."""
        reader = PageParser()
        page = Page(limit=len(ids) + INTERVAL, interval=INTERVAL, include_docs=False)
        query = page_query(self._options, self._since, page)
        with self._source.changes(query, silent_seconds=self._options.timeout, ids=ids) as answer:
            self._recognition.check()
            changes = [change for block in answer.blocks() for change, _ in reader.feed(block)]
        skip = "_design/" if self._options.skip_design else None
        return [c for c in changes if skip is None or not c.id.startswith(skip)], whole(reader)

    # --- following the head

    def _follow(self) -> None:
        """Reads what comes, request after request, until we are far behind or it has been long."""
        self.following = True
        clock = self._hands.clock
        until = clock.monotonic() + self._hands.max_life_seconds
        while not self._hands.stop.is_set():
            began_at = clock.monotonic()
            closing, rows = self._poll() if self._source.longpolls else self._stream()
            self._rest(clock.monotonic() - began_at, rows)
            far_behind = closing is not None and (closing.pending or 0) > FAR_BEHIND
            if far_behind or clock.monotonic() > until:
                return

    def _rest(self, lasted_seconds: float, rows: int) -> None:
        """Waits after a response that was short: a server in maintenance ends each at once, in good order.

        While others write, each has a row or two; still no more than one a second is asked for. A longpoll
        ends with its first rows by its nature: the next may follow, after the linger.
        """
        short_seconds = SHORT_LIFE_SECONDS - lasted_seconds
        if not rows and short_seconds >= 0:
            self._hands.clock.wait(self._hands.stop, max(SHORT_LIFE_SECONDS, self._hands.backoff.next()))
            return
        self._hands.backoff.reset()
        if short_seconds > 0 and not self._source.longpolls:
            self._hands.clock.wait(self._hands.stop, short_seconds)

    def _stream(self) -> tuple[ResponseEnd | None, int]:
        """One continuous response; returns how it ended, if it did in good order, and its rows."""
        watch = ProxyBufferingDetector(self._hands.clock, self._options.timeout)
        reader = ContinuousParser()
        query = tail_query(self._options, self._since, feed="continuous")
        with self._tail(query, reader) as (cutter, blocks):
            for _ in blocks:
                watch.saw()
                if watch.age_seconds > self._hands.max_life_seconds:
                    break
        if watch.buffered:
            self._hands.warn("source.buffered", {"remedy": "let the proxy pass `_changes` on unbuffered"})
            self._source.longpolls = self._options.mode == "auto"
        return reader.closing, cutter.rows

    def _poll(self) -> tuple[ResponseEnd | None, int]:
        """One longpoll response, and a moment for the next changes to gather."""
        reader = PageParser()
        query = tail_query(self._options, self._since, feed="longpoll", limit=LONGPOLL_ROWS)
        with self._tail(query, reader) as (cutter, blocks):
            for _ in blocks:
                pass
            whole(reader)
        if cutter.rows < LONGPOLL_ROWS:
            self._hands.clock.wait(self._hands.stop, LINGER_SECONDS)
        return reader.closing, cutter.rows

    @contextmanager
    def _tail(self, query: str, reader: ChangesParser) -> Iterator[tuple[BatchCutter, Iterator[None]]]:
        """A response at the head, whose rows are handed on block by block as it is iterated."""
        cutter = BatchCutter(skip_design=self._options.skip_design)
        loader = self._loader()
        asked_at = self._hands.clock.monotonic()
        try:
            with self._source.changes(query, silent_seconds=self._options.timeout) as answer:
                self._recognition.check()
                yield cutter, self._hand_on(answer, reader, cutter, loader)
            if reader.closing is not None:
                closing = reader.closing
                last = cutter.end(closing.seq, caught_up=not closing.pending, pending=closing.pending)
                self._give(last if cutter.rows else replace(last, asked_at=asked_at), loader)
        finally:
            loader.close()

    def _hand_on(
        self, answer: StreamingResponse, reader: ChangesParser, cutter: BatchCutter, loader: DocumentLoader
    ) -> Iterator[None]:
        try:
            for block in answer.blocks():
                for change, size_bytes in reader.feed(block):
                    if (batch := cutter.add(change, size_bytes)) is not None:
                        self._give(batch, loader)
                if (batch := cutter.cut()) is not None:
                    self._give(batch, loader)
                yield
        except MalformedFeedError:
            if (batch := cutter.cut()) is not None:
                self._give(batch, loader)
            raise

    def _give(self, batch: ChangeBatch, loader: DocumentLoader) -> None:
        loader.add(batch)
        loader.drain()
        if batch.seq is not None:
            self._since = batch.seq
