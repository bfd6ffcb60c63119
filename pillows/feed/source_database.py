"""One database of one CouchDB server: who it is, and its `_changes`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256

import msgspec

from pillows.couch.client import CouchClient
from pillows.couch.database_info import get_database_info, get_server_info
from pillows.couch.errors import MissingError, RejectedError
from pillows.couch.response import ActivityMonitor, StreamingResponse
from pillows.errors import (
    ConfigError,
    FatalError,
    InvalidSeqError,
    RetryableError,
    SourceMissingError,
)
from pillows.feed.base import DatabaseIdentity
from pillows.feed.changes_parser import ChangesParser, PageParser, ResponseEnd
from pillows.feed.document_fetcher import DocumentFetcher
from pillows.feed.options import SourceOptions
from pillows.feed.requests import filter_body
from pillows.feed.throttle import ConcurrencyLimit, ThrottleWait

#: A database that is not there is asked for as seldom as this.
MISSING_SECONDS = 30.0


#: A refusal without a word, of a request longer than this, is for its length: CouchDB's web server says
#: 400 so where the request line does not fit into its buffer, and the smallest limit of proxies is 4,096.
LONG_REQUEST = 4000


class _PurgedInfo(msgspec.Struct):
    id: str


class _PurgedInfos(msgspec.Struct):
    purged_infos: list[_PurgedInfo]


class SourceDatabase:
    """One database of one server, and the requests that a feed sends to it.

    Args:
        couch: the server.
        options: the database, and how to read it.
        activity: told of every byte.
        key: whose feed this is.
        on_throttled: told while documents wait since the server asked us to slow down (`DocumentFetcher`).

    Attributes:
        longpolls: whether the head is followed by one request after the other. Found out where the
            mode is `auto`: Cloudant ends continuous feeds as it likes, and some proxies buffer them.
    """

    def __init__(
        self,
        couch: CouchClient,
        options: SourceOptions,
        activity: ActivityMonitor,
        key: str = "",
        on_throttled: Callable[[ThrottleWait | None], None] = lambda _: None,
    ) -> None:
        self._mark = f"pillowd-{sha256(key.encode()).hexdigest()[:24]}"
        self.couch = couch
        self.options = options
        self.activity = activity
        self._on_throttled = on_throttled
        self.longpolls = options.mode == "longpoll"

    def documents(self, limit: ConcurrencyLimit) -> DocumentFetcher:
        """Fetches this database's documents, at the given limit."""
        return DocumentFetcher(
            self.couch,
            self.options.database,
            limit=limit,
            activity=self.activity,
            silent_seconds=self.options.timeout,
            on_throttled=self._on_throttled,
        )

    def identify(self) -> DatabaseIdentity:
        """Asks the server and the database who they are."""
        welcome = get_server_info(self.couch, activity=self.activity)
        if self.options.mode == "auto" and "Cloudant" in str(welcome.vendor.get("name")):
            self.longpolls = True
        return self.info(welcome.uuid)

    def info(self, server_uuid: str | None) -> DatabaseIdentity:
        """Asks the database alone."""
        with self._understood():
            info = get_database_info(self.couch, self.options.database, activity=self.activity)
        start, purge = info.instance_start_time, info.purge_seq
        return DatabaseIdentity(
            server_uuid=server_uuid,
            instance_start_time=None if start is None else str(start),
            purge_seq=None if purge is None else str(purge),
        )

    def mark(self) -> None:
        """Leaves a document in the database that replication does not carry, nor the feed show."""
        if not self.marked():
            with self._understood():
                self.couch.json("PUT", self._mark_path, dict, body={}, activity=self.activity)

    def marked(self) -> bool:
        """Whether the document is there: a database that was created anew has none."""
        try:
            with self._understood():
                self.couch.json("GET", self._mark_path, dict, activity=self.activity)
        except RejectedError as error:
            if error.status != 404:
                raise
            return False
        return True

    @property
    def _mark_path(self) -> str:
        return self.couch.path(self.options.database, "_local", self._mark)

    def purged_ids(self) -> list[str] | None:
        """The ids of the last purges, some of which may be there again; None before CouchDB 3.4.

        The server remembers a bounded number of them (`purged_infos_limit`, 1,000 by default).
        """
        path = self.couch.path(self.options.database, "_purged_infos")
        try:
            told = self.couch.json("GET", path, _PurgedInfos, activity=self.activity)
        except RejectedError:
            return None
        return list({info.id: None for info in told.purged_infos})

    @contextmanager
    def changes(
        self, query: str, *, silent_seconds: float, ids: Sequence[str] | None = None
    ) -> Iterator[StreamingResponse]:
        """Opens `_changes`.

        Args:
            query: encoded.
            silent_seconds: how long the server itself may say nothing.
            ids: which of `doc_ids` to ask for; all of them by default.
        """
        body = filter_body(self.options, ids)
        path = f"{self.couch.path(self.options.database, '_changes')}?{query}"
        method = "GET" if body is None else "POST"
        with ExitStack() as stack:
            with self._understood(len(path)):  # not what else is asked while the answer is read
                answer = stack.enter_context(
                    self.couch.open(
                        method, path, body=body, silent_seconds=silent_seconds, activity=self.activity
                    )
                )
            yield answer

    def probe(self, since: str) -> ResponseEnd:
        """The position of `since` (encoded) as the server has it now, and what is behind it."""
        reader = PageParser()
        with self.changes(f"since={since}&limit=0&style=all_docs", silent_seconds=0.0) as answer:
            for block in answer.blocks():
                deque(reader.feed(block), maxlen=0)
        return whole(reader)

    @contextmanager
    def _understood(self, length: int = 0) -> Iterator[None]:
        """Says what a rejection means for a feed, of a request whose path had so many characters."""
        try:
            yield
        except MissingError as error:
            if self.options.on_missing == "fail":
                raise SourceMissingError(str(error), remedy="create the database") from None
            raise RetryableError(str(error), retry_after_seconds=MISSING_SECONDS) from None
        except RejectedError as error:
            raise self._meaning(error, length) from None

    def _meaning(self, error: RejectedError, length: int) -> FatalError | RetryableError:
        wordless = error.status == 400 and not error.body.error
        if error.status in (414, 431) or (wordless and length > LONG_REQUEST):
            return InvalidSeqError(
                f"The saved position is too long for a request, of {length} characters with it: {error}",
                remedy="raise the limit of the proxy, or of CouchDB (`[chttpd] max_uri_length`); after "
                "`pillowd checkpoint reset` positions grow as long again",
            )
        if error.status == 400 and error.body.error == "bad_request":
            return InvalidSeqError(
                f"CouchDB does not take the saved position: {error}",
                remedy="`pillowd checkpoint reset`, or set a position that it knows",
            )
        if error.status == 404 and self.options.filtered:
            return ConfigError(str(error), remedy="check the source's filter")
        return error


def whole(reader: ChangesParser) -> ResponseEnd:
    """How a response ended that must be whole.

    Raises:
        RetryableError: it was cut; a cut may look like a clean end.
    """
    if reader.closing is None:
        raise RetryableError("The feed was cut before its end.")
    return reader.closing
