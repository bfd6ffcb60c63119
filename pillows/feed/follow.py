"""Follow the head of the feed: one response after the other, batch by batch as rows arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pillows.clock import Clock
from pillows.feed.batch_cutter import BatchCutter
from pillows.feed.catch_up import FAR_BEHIND
from pillows.feed.parsing.changes_parser import (
    ChangesParser,
    ContinuousParser,
    MalformedFeedError,
    PageParser,
)
from pillows.feed.reader_task import ReadCursor
from pillows.feed.requests import tail_query
from pillows.feed.source_database import SourceDatabase, require_complete
from pillows.retry.backoff import Backoff

#: A response that ends sooner comes from a server in maintenance or worse.
SHORT_LIFE_SECONDS = 1.0

#: A busy response never ends by itself; a new request checks whether we still have access.
MAX_LIFE_SECONDS = 1800.0

#: Pause after a short longpoll answer, so that a steady trickle does not cost a request for each row.
LINGER_SECONDS = 0.1
LONGPOLL_ROWS = 1000

#: Share of the idle timeout after which a first byte counts as late.
_LATE = 0.8


def is_buffered(first_byte_seconds: float | None, lasted_seconds: float, timeout_seconds: float) -> bool:
    """Return whether a proxy held back a continuous response until its end.

    CouchDB sends a line end at once, so a response whose first byte comes with its end was held back.

    Args:
        first_byte_seconds: from the request to the first byte; None if there was none.
        lasted_seconds: from the request to the end of the response.
        timeout_seconds: longest silence of CouchDB.
    """
    late_seconds = max(_LATE * timeout_seconds, lasted_seconds - 1.0)
    return first_byte_seconds is not None and first_byte_seconds > late_seconds


class Follower:
    """Reads what arrives at the head of one database. Outlives each reading.

    Args:
        source: the database.
        clock: for waits and ages.
        warn: reports an event and its details to the operator.
        get_max_life_seconds: returns how long the head is followed before a page is read again.
    """

    def __init__(
        self,
        source: SourceDatabase,
        clock: Clock,
        *,
        warn: Callable[[str, Mapping[str, object]], None],
        get_max_life_seconds: Callable[[], float],
    ) -> None:
        self._source = source
        self._options = source.options
        self._clock = clock
        self._warn = warn
        self._get_max_life_seconds = get_max_life_seconds
        self._backoff = Backoff()

    def run(self, cursor: ReadCursor) -> None:
        """Read response after response until many changes are pending or the maximum life is over.

        Raises:
            RetryableError: a response failed.
            FatalError: reading cannot continue.
        """
        cursor.following = True
        began_at = self._clock.monotonic()
        while not cursor.stop.is_set():
            asked_at = self._clock.monotonic()
            pending, rows = self._longpoll(cursor) if self._source.longpolls else self._stream(cursor)
            self._rest_after_short_response(cursor, self._clock.monotonic() - asked_at, rows)
            too_old = self._clock.monotonic() - began_at > self._get_max_life_seconds()
            if too_old or (pending or 0) > FAR_BEHIND:
                return

    def _rest_after_short_response(self, cursor: ReadCursor, lasted_seconds: float, rows: int) -> None:
        """Wait after a short response: a server in maintenance ends each one at once, in good order.

        While others write, each has a row or two; still at most one request per second is sent. A longpoll
        ends with its first rows by design: the next one may follow after `LINGER_SECONDS`.
        """
        short_seconds = SHORT_LIFE_SECONDS - lasted_seconds
        if not rows and short_seconds >= 0:
            self._clock.wait(cursor.stop, max(SHORT_LIFE_SECONDS, self._backoff.next()))
            return
        self._backoff.reset()
        if short_seconds > 0 and not self._source.longpolls:
            self._clock.wait(cursor.stop, short_seconds)

    def _stream(self, cursor: ReadCursor) -> tuple[int | None, int]:
        """Read one continuous response; return how many changes are pending, and its rows."""
        asked_at = self._clock.monotonic()
        parser = ContinuousParser(self._options.max_document)
        query = tail_query(self._options, cursor.since, feed="continuous")
        rows, first_byte_at = self._read_response(cursor, query, parser, is_endless=True)
        lasted_seconds = self._clock.monotonic() - asked_at
        first_byte_seconds = None if first_byte_at is None else first_byte_at - asked_at
        if is_buffered(first_byte_seconds, lasted_seconds, self._options.timeout):
            self._warn("source.buffered", {"remedy": "let the proxy pass `_changes` on unbuffered"})
            self._source.longpolls = self._options.mode == "auto"
        return parser.end.pending if parser.end else None, rows

    def _longpoll(self, cursor: ReadCursor) -> tuple[int | None, int]:
        """Read one longpoll response, then wait a moment for the next changes to gather."""
        parser = PageParser(self._options.max_document)
        query = tail_query(self._options, cursor.since, feed="longpoll", limit=LONGPOLL_ROWS)
        rows, _ = self._read_response(cursor, query, parser, is_endless=False)
        end = require_complete(parser)
        if rows < LONGPOLL_ROWS:
            self._clock.wait(cursor.stop, LINGER_SECONDS)
        return end.pending, rows

    def _read_response(
        self, cursor: ReadCursor, query: str, parser: ChangesParser, *, is_endless: bool
    ) -> tuple[int, float | None]:
        """Yield the rows of a response to the consumer, block by block.

        Args:
            cursor: the reading.
            query: of the request.
            parser: of the response.
            is_endless: whether the response may never end; it is then closed at its maximum age.

        Returns:
            The number of rows, and the monotonic seconds of the first byte; None if there was none.
        """
        cutter = BatchCutter(skip_design=self._options.skip_design)
        asked_at, first_byte_at = self._clock.monotonic(), None
        with self._source.changes(query, silent_seconds=self._options.timeout) as response:
            cursor.identity.check()
            try:
                for block in response.blocks():
                    now = self._clock.monotonic()
                    first_byte_at = now if first_byte_at is None else first_byte_at
                    for change, size_bytes in parser.feed(block):
                        if (batch := cutter.add(change, size_bytes)) is not None:
                            cursor.hand_over(batch)
                    if (batch := cutter.cut()) is not None:
                        cursor.hand_over(batch)
                    if is_endless and now - asked_at > self._get_max_life_seconds():
                        break
            except MalformedFeedError:
                if (batch := cutter.cut()) is not None:
                    cursor.hand_over(batch)
                raise
        if (end := parser.end) is not None:
            cursor.hand_over(
                cutter.end(
                    end.seq,
                    caught_up=not end.pending,
                    pending=end.pending,
                    asked_at=None if cutter.rows else asked_at,
                )
            )
        return cutter.rows, first_byte_at
