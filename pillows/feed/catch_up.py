"""Read page after page until the head of the feed is reached."""

from __future__ import annotations

from collections.abc import Sequence

from pillows.clock import Clock
from pillows.errors import RetryableError
from pillows.feed.batch_cutter import BatchCutter
from pillows.feed.brake import Brake
from pillows.feed.doc_id_groups import DocIdGroups
from pillows.feed.documents.fetch_mode import FetchMode, FetchModeTuner
from pillows.feed.documents.loader import AverageSize
from pillows.feed.parsing.changes_parser import PageParser, ResponseEnd
from pillows.feed.reader_task import ReadCursor
from pillows.feed.requests import INTERVAL, Page, page_query, plan_page
from pillows.feed.source_database import SourceDatabase, require_complete
from pillows.models import Change, ChangeBatch

#: Changes behind, from which on the faster fetch mode is searched (`pillows.feed.documents.fetch_mode`).
FAR_BEHIND = 10_000


class CatchUp:
    """Reads pages of one database. Outlives each reading.

    Args:
        source: the database.
        clock: for rates and ages.
        sizes: the average size of documents.
    """

    def __init__(self, source: SourceDatabase, clock: Clock, sizes: AverageSize) -> None:
        self._source = source
        self._options = source.options
        self._clock = clock
        self._sizes = sizes
        self._tuner = FetchModeTuner()
        self._brake = Brake(self._options.max_rate, self._options.quiet_hours, clock)

    def run(self, cursor: ReadCursor) -> None:
        """Read pages until the head is reached or a stop is requested.

        Raises:
            RetryableError: a page was cut off; its complete rows were handed over.
            FatalError: reading cannot continue.
        """
        cursor.following = False
        pending = self._count_pending(cursor)
        self._tuner.begin(self._clock.monotonic())
        try:
            while not cursor.stop.is_set():
                page = self._plan(pending)
                began_at = self._clock.monotonic()
                end, rows = self._read_page(cursor, page)
                if self._is_at_head(page, end, rows):
                    break
                self._brake.slow_down(rows, self._clock.monotonic() - began_at, cursor.stop)
                self._tune(cursor, pending, rows)
                pending = end.pending
            cursor.loader.drain()
        except RetryableError:
            if self._tunes(pending):
                self._tuner.fail()
            raise

    def _count_pending(self, cursor: ReadCursor) -> int | None:
        """Return how many changes follow the position; None if no decision depends on it."""
        if self._options.documents != "auto" or self._options.is_filtered_by_server:
            return None
        return self._source.probe(cursor.since.query).pending

    def _tunes(self, pending: int | None) -> bool:
        """Return whether the fetch mode is configured as `auto`, and enough changes are pending."""
        return self._options.documents == "auto" and pending is not None and pending > FAR_BEHIND

    def _plan(self, pending: int | None) -> Page:
        most = None
        if self._tunes(pending):
            include_docs = self._tuner.mode is FetchMode.INCLUDE_DOCS
            most = self._tuner.rows_left
        else:
            include_docs = self._options.documents != "bulk_get" and not self._options.is_filtered_by_server
        return plan_page(self._options, self._sizes.average_bytes, include_docs=include_docs, most=most)

    def _tune(self, cursor: ReadCursor, pending: int | None, rows: int) -> None:
        """End a lap; before the mode changes, all its documents must arrive: no other lap may do its work."""
        if pending is None or not self._tunes(pending):
            cursor.held_up_seconds = 0.0
            self._tuner.begin(self._clock.monotonic())
        elif self._tuner.count(rows, self._clock.monotonic()):
            if self._tuner.changes_mode(pending):
                cursor.loader.drain()
            self._tuner.end(self._clock.monotonic(), pending, held_up_seconds=cursor.held_up_seconds)
            cursor.held_up_seconds = 0.0

    def _is_at_head(self, page: Page, end: ResponseEnd, rows: int) -> bool:
        """Return whether a page ends at the head: nothing is pending, or it has fewer rows than its limit.

        With a filter, `pending` also counts changes that the filter drops, so it is ignored.
        """
        if rows == 0 or self._options.is_filtered_by_server:
            return rows < page.limit
        return end.pending == 0 or (rows < page.limit and end.pending is None)

    def _read_page(self, cursor: ReadCursor, page: Page) -> tuple[ResponseEnd, int]:
        """Read one page to its end; return its end and its number of rows."""
        cutter = BatchCutter(skip_design=self._options.skip_design, is_page=True)
        parser = PageParser(self._options.max_document)
        query = page_query(self._options, cursor.since, page)
        asked_at = self._clock.monotonic()
        try:
            with self._source.changes(query, silent_seconds=self._options.timeout) as response:
                cursor.identity.check()
                for block in response.blocks():
                    for change, size_bytes in parser.feed(block):
                        if (batch := cutter.add(change, size_bytes)) is not None:
                            cursor.loader.add(batch)
            end = require_complete(parser)
        except RetryableError:
            # Complete rows are valid, and a poor connection may never deliver a whole page.
            if (batch := cutter.cut()) is not None:
                cursor.loader.add(batch)
            cursor.loader.drain()
            raise
        if page.include_docs:
            self._sizes.record(cutter.rows, cutter.read_bytes)
        at_head = self._is_at_head(page, end, cutter.rows)
        last = cutter.end(
            end.seq, caught_up=at_head, pending=end.pending, asked_at=asked_at if at_head else None
        )
        cursor.loader.add(last)
        cursor.since = end.seq
        return end, cutter.rows


class GroupedCatchUp:
    """Reads a feed that is filtered by more ids than one request may name. Made for each reading.

    Args:
        source: the database.
        clock: for the age of positions.
        groups: the ids.
    """

    def __init__(self, source: SourceDatabase, clock: Clock, groups: DocIdGroups) -> None:
        self._source = source
        self._options = source.options
        self._clock = clock
        self._groups = groups

    def run(self, cursor: ReadCursor) -> None:
        """Read each group of ids from the same position, and advance that position when it is safe.

        Raises:
            RetryableError: an answer was cut off.
            FatalError: reading cannot continue.
        """
        began_at = self._clock.monotonic()
        for number, ids in enumerate(self._groups.groups):
            if cursor.stop.is_set():
                return
            changes, end = self._read_group(cursor, ids)
            if number == 0:
                self._groups.hold(self._clock.monotonic(), end.seq)
            cursor.loader.add(ChangeBatch(changes=self._groups.take_new(changes), seq=None))
        cursor.since = self._groups.find_covered(began_at) or cursor.since
        cursor.loader.add(ChangeBatch(changes=(), seq=cursor.since, caught_up=True))
        cursor.loader.drain()

    def _read_group(self, cursor: ReadCursor, ids: Sequence[str]) -> tuple[list[Change], ResponseEnd]:
        """Read all rows of some ids. Each id has at most one row, so one response holds them all."""
        parser = PageParser(self._options.max_document)
        page = Page(limit=len(ids) + INTERVAL, interval=INTERVAL, include_docs=False)
        query = page_query(self._options, cursor.since, page)
        with self._source.changes(query, silent_seconds=self._options.timeout, ids=ids) as response:
            cursor.identity.check()
            changes = [change for block in response.blocks() for change, _ in parser.feed(block)]
        skips_design = self._options.skip_design
        kept = [each for each in changes if not (skips_design and each.id.startswith("_design/"))]
        return kept, require_complete(parser)
