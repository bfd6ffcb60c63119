"""Send a feed's requests to one database of one CouchDB server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from hashlib import sha256

import msgspec

from pillows.couch.client import LIST_ANSWER_BYTES, SMALL_ANSWER_BYTES, CouchClient
from pillows.couch.database_info import DatabaseInfo, get_database_info, get_server_info
from pillows.couch.errors import MissingError, RejectedError
from pillows.couch.http.response import ActivityMonitor, StreamingResponse
from pillows.errors import (
    ConfigError,
    FatalError,
    InvalidSeqError,
    RetryableError,
    SourceMissingError,
)
from pillows.feed.base import DatabaseIdentity
from pillows.feed.documents.fetcher import DocumentFetcher
from pillows.feed.documents.throttle import ConcurrencyLimit, ThrottleWait
from pillows.feed.options import SourceOptions
from pillows.feed.parsing.changes_parser import ChangesParser, PageParser, ResponseEnd
from pillows.feed.requests import filter_body

#: Wait before a missing database is requested again.
MISSING_SECONDS = 30.0


#: Longest request line that is known to be accepted, in characters. Beyond it, a bare 400 means that the line
#: is too long: CouchDB's HTTP server answers without a body, and the smallest limit of proxies is 4,096.
MAX_SAFE_REQUEST = 4000


#: Purges that CouchDB keeps unless it is configured otherwise (CouchDB docs, "/{db}/_purged_infos_limit").
PURGED_INFOS_LIMIT = 1000


class PurgeInfo(msgspec.Struct, frozen=True):
    """One purge that the server lists."""

    id: str
    revs: tuple[str, ...] = ()


class _PurgedInfos(msgspec.Struct):
    purged_infos: list[PurgeInfo]


class SourceDatabase:
    """One database of one server, and the requests that a feed sends to it.

    Args:
        couch: the server.
        options: the database, and how to read it.
        activity: records every block that arrives.
        key: identifies the reader in the identity token.
        on_throttled: called while a fetch waits because the server throttled it (`DocumentFetcher`).

    Attributes:
        longpolls: whether the head is followed by longpoll requests. Found out in mode `auto`: Cloudant
            ends continuous feeds at any time, and some proxies buffer them.
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

    def create_fetcher(self, limit: ConcurrencyLimit) -> DocumentFetcher:
        """Return a fetcher of this database's documents."""
        return DocumentFetcher(
            self.couch,
            self.options.database,
            limit=limit,
            activity=self.activity,
            silent_seconds=self.options.timeout,
            max_document_bytes=self.options.max_document,
            on_throttled=self._on_throttled,
        )

    def identify(self) -> DatabaseIdentity:
        """Read the identity of server and database."""
        welcome = get_server_info(self.couch, activity=self.activity)
        if self.options.mode == "auto" and "Cloudant" in str(welcome.vendor.get("name")):
            self.longpolls = True
        return self.info(welcome.uuid)

    def info(self, server_uuid: str | None) -> DatabaseIdentity:
        """Read the identity of the database.

        Args:
            server_uuid: the known UUID of its server.
        """
        info = self.read_info()
        start, purge = info.instance_start_time, info.purge_seq
        return DatabaseIdentity(
            server_uuid=server_uuid,
            instance_start_time=None if start is None else str(start),
            purge_seq=None if purge is None else str(purge),
        )

    def read_info(self) -> DatabaseInfo:
        """Read the description of the database."""
        with self._translate_errors():
            return get_database_info(self.couch, self.options.database, activity=self.activity)

    def mark(self) -> None:
        """Write a local document to the database, which is neither replicated nor in the feed."""
        if not self.is_marked():
            with self._translate_errors():
                self.couch.json("PUT", self._mark_path, dict, body={}, max_bytes=SMALL_ANSWER_BYTES)

    def is_marked(self) -> bool:
        """Return whether our identity token exists: a recreated database has none."""
        try:
            with self._translate_errors():
                self.couch.json("GET", self._mark_path, dict, max_bytes=SMALL_ANSWER_BYTES)
        except RejectedError as error:
            if error.status != 404:
                raise
            return False
        return True

    @property
    def _mark_path(self) -> str:
        return self.couch.path(self.options.database, "_local", self._mark)

    def list_purges(self) -> list[PurgeInfo] | None:
        """Return the purges that the server still lists, in no order; None before CouchDB 3.4."""
        path = self.couch.path(self.options.database, "_purged_infos")
        try:
            return self.couch.json("GET", path, _PurgedInfos, max_bytes=LIST_ANSWER_BYTES).purged_infos
        except RejectedError:
            return None

    def read_purges_limit(self) -> int:
        """Return how many purges each shard keeps for certain."""
        path = self.couch.path(self.options.database, "_purged_infos_limit")
        try:
            return self.couch.json("GET", path, int, max_bytes=SMALL_ANSWER_BYTES)
        except RejectedError:
            return PURGED_INFOS_LIMIT

    def changes(
        self, query: str, *, silent_seconds: float, ids: Sequence[str] | None = None
    ) -> AbstractContextManager[StreamingResponse]:
        """Return a context that opens `_changes` and gives the response.

        Args:
            query: encoded.
            silent_seconds: longest silence of the server itself.
            ids: the `doc_ids` to ask for; all by default.
        """
        return self._open("_changes", query, filter_body(self.options, ids), silent_seconds)

    def list_documents(
        self, query: str, *, silent_seconds: float
    ) -> AbstractContextManager[StreamingResponse]:
        """Return a context that opens `_all_docs` and gives the response.

        Args:
            query: encoded.
            silent_seconds: longest silence of the server itself.
        """
        return self._open("_all_docs", query, None, silent_seconds)

    def probe(self, since: str) -> ResponseEnd:
        """Return the server's present position for `since` (encoded), and how many changes follow it."""
        parser = PageParser()
        with self.changes(f"since={since}&limit=0&style=all_docs", silent_seconds=0.0) as response:
            for block in response.blocks():
                deque(parser.feed(block), maxlen=0)
        return require_complete(parser)

    @contextmanager
    def _open(
        self, of: str, query: str, body: bytes | None, silent_seconds: float
    ) -> Iterator[StreamingResponse]:
        path = f"{self.couch.path(self.options.database, of)}?{query}"
        method = "GET" if body is None else "POST"
        with ExitStack() as stack:
            with self._translate_errors(len(path)):  # not other requests sent while the response is read
                response = stack.enter_context(
                    self.couch.open(
                        method, path, body=body, silent_seconds=silent_seconds, activity=self.activity
                    )
                )
            yield response

    @contextmanager
    def _translate_errors(self, length: int = 0) -> Iterator[None]:
        """Translate a rejected request into the feed's error.

        Args:
            length: characters of the request's path.
        """
        try:
            yield
        except MissingError as error:
            if self.options.on_missing == "fail":
                raise SourceMissingError(
                    str(error), remedy="create the database, or correct its name"
                ) from None
            raise RetryableError(str(error), retry_after_seconds=MISSING_SECONDS) from None
        except RejectedError as error:
            raise self._to_error(error, length) from None

    def _to_error(self, error: RejectedError, length: int) -> FatalError | RetryableError:
        is_bare = error.status == 400 and not error.body.error
        if error.status in (414, 431) or (is_bare and length > MAX_SAFE_REQUEST):
            return InvalidSeqError(
                f"The saved position makes the request too long, {length} characters: {error}",
                remedy="raise the limit of the proxy, or of CouchDB (`[chttpd] max_uri_length`); after "
                "`pillowd checkpoint reset KEY` positions grow as long again",
            )
        if error.status == 400 and error.body.error == "bad_request":
            return InvalidSeqError(
                f"CouchDB rejects the saved position: {error}",
                remedy="`pillowd checkpoint reset KEY`, or `pillowd checkpoint set KEY SEQ`",
            )
        if error.status == 404 and self.options.is_filtered_by_server:
            return ConfigError(str(error), remedy="check the source's filter")
        return error


def require_complete(parser: ChangesParser) -> ResponseEnd:
    """Return the end of a response.

    Raises:
        RetryableError: the response was cut off, even if the connection ended cleanly.
    """
    if parser.end is None:
        raise RetryableError("The feed was cut before its end.")
    return parser.end
