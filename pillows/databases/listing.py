"""List the databases of a server with their descriptions, a page at a time.

Three ways, in the order in which they are tried: `GET /_dbs_info` (CouchDB 3.2); `GET /_all_dbs` with
`POST /_dbs_info` (2.2); `GET /_all_dbs` with one `GET /{db}` each (1.x, and restrictive proxies). All are
for server administrators, unless `[chttpd] admin_only_all_dbs` is false; other users can only ask for
databases by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from hashlib import blake2b
from itertools import pairwise
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from pillows.couch.client import LIST_ANSWER_BYTES, CouchClient
from pillows.couch.database_info import DatabaseInfo, get_database_info
from pillows.couch.errors import (
    ForbiddenError,
    MissingError,
    RejectedError,
    ServerError,
    ThrottledError,
)
from pillows.errors import AwayError, FatalError, PillowError, RetryableError
from pillows.feed.base import DatabaseIdentity, count_purges

_Answer = TypeVar("_Answer")

#: Weight of a request that opens one database instead of a hundred.
_SINGLE = 0.1

#: Databases in a row that may fail to answer; after that the server itself counts as unreachable.
SILENT_IN_A_ROW = 3

#: HTTP statuses which mean that a server or a proxy does not support a request; 401 and 403 are access
#: errors. CouchDB 1.x answers 400, as it takes the path for the name of a database.
_UNSERVED = (400, 404, 405, 501)

#: Databases in one request: the most that `POST /_dbs_info` takes (`max_db_number_for_dbs_info_req`).
PAGE = 100


#: Length of a description's digest.
DIGEST_BYTES = 8


class _Entry(msgspec.Struct):
    key: str
    info: DatabaseInfo | None = None


class Description(Struct, frozen=True):
    """A database as a sweep found it.

    Attributes:
        name: its name.
        digest: of its position, its creation time and its purges; empty if the server did not describe it.
            Equal digests mean that nothing has changed. Different ones prove nothing: each node has its own.
        identity: its creation time and the number of its purges; empty if the server did not describe it.
        has_copies: whether the server keeps several copies of it, of which some may lag.
    """

    name: str
    digest: bytes = b""
    identity: str = ""
    has_copies: bool = False


def describe(name: str, info: DatabaseInfo) -> Description:
    """Return the description of a database."""
    identity = f"{info.instance_start_time or ''}/{count_purges(str(info.purge_seq or ''))}"
    text = msgspec.json.encode([info.update_seq, identity])
    digest = blake2b(text, digest_size=DIGEST_BYTES).digest()
    # A server that does not report its copies may have several; CouchDB 1.x, with a number, has one.
    has_copies = info.copies != 1 and not isinstance(info.update_seq, int)
    return Description(name, digest, identity, has_copies)


def halve(ranges: Sequence[tuple[str, str]], known: Iterable[str]) -> list[tuple[str, str]]:
    """Split ranges of many databases in two, so that two requests can run at once.

    The name in the middle is in both parts.

    Args:
        ranges: first and last name of each.
        known: the names that are known, in any order.
    """
    names = sorted(known)
    parts: list[tuple[str, str]] = []
    for start, end in ranges:
        within = [name for name in names if start <= name <= end]
        middle = [within[len(within) // 2]] if len(within) > 2 * PAGE else []
        parts += pairwise([start, *middle, end])
    return parts


def parse_identity(text: str) -> DatabaseIdentity | None:
    """Return the identity in a description; None if there is none."""
    start, _, purges = text.partition("/")
    return DatabaseIdentity(instance_start_time=start or None, purge_seq=purges or None) if text else None


class NotListedError(FatalError):
    """The server does not list its databases for our user."""


class Way(IntEnum):
    """The requests by which a server's databases are listed."""

    DESCRIBED_TOGETHER = 0
    NAMED_TOGETHER = 1
    ONE_BY_ONE = 2


class DatabaseList:
    """Lists the databases of one server.

    Args:
        couch: the server.
        pace: called with the weight of each request before it is sent; waits to limit the rate.
        wants: returns whether a database should be described, given its name.

    Attributes:
        way: how the server was asked.
    """

    def __init__(
        self,
        couch: CouchClient,
        pace: Callable[[float], None] = lambda _: None,
        wants: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._couch = couch
        self._pace = pace
        self._wants = wants
        self._silent = 0
        self.way = Way.DESCRIBED_TOGETHER

    def pages(self, start: str, end: str) -> Iterator[Sequence[Description]]:
        """Yield pages of at most `PAGE` databases between two names, in order.

        Raises:
            NotListedError: the server does not list its databases for our user.
            RetryableError: the server is unreachable or busy.
            AccessError: the server denies access.
        """
        after = ""
        while True:
            # The answer includes the first name itself, if it exists. CouchDB 1.x ignores the range and lists
            # all.
            entries = self._list(after or start, end)
            fresh = [
                each
                for each in entries
                if each.key > after and start <= each.key <= end and self._wants(each.key)
            ]
            for begin in range(0, len(fresh), PAGE):
                if found := self._describe(fresh[begin : begin + PAGE]):
                    yield found
            if len(entries) <= PAGE or entries[-1].key <= after:
                return
            after = entries[-1].key

    def describe_some(self, names: Sequence[str]) -> Iterator[Sequence[Description]]:
        """Yield the databases with the given names that exist; send one request for each.

        Raises:
            RetryableError, AccessError: as `pages`. Errors of a single database are not raised.
        """
        for name in names:
            yield self._describe_one(name)

    @property
    def limit(self) -> FatalError | None:
        """An error that says why the best way is not used, with the remedy; None if it is used."""
        lacking = {Way.NAMED_TOGETHER: "`GET /_dbs_info`", Way.ONE_BY_ONE: "`_dbs_info`"}.get(self.way)
        if lacking is None:
            return None
        remedy = "upgrade to CouchDB 3.2 or later, or let the proxy in between pass it"
        return FatalError(f"The server has no {lacking}.", remedy=remedy)

    def _list(self, start: str, end: str) -> Sequence[_Entry]:
        """Return up to `PAGE + 1` databases, with descriptions if they come in the same answer."""
        query = urlencode({"startkey": _quote(start), "endkey": _quote(end), "limit": PAGE + 1})
        if self.way is Way.DESCRIBED_TOGETHER:
            try:
                return self._ask("GET", f"/_dbs_info?{query}", list[_Entry])
            except PillowError as error:
                _raise_unless_unserved(error)
        try:
            names = self._ask("GET", f"/_all_dbs?{query}", list[str])
        except PillowError as error:
            _raise_unless_unserved(error)
            raise _to_not_listed(error) from None
        self.way = max(self.way, Way.NAMED_TOGETHER)
        return [_Entry(name) for name in names]

    def _describe(self, entries: Sequence[_Entry]) -> Sequence[Description]:
        if self.way is Way.NAMED_TOGETHER:
            try:
                keys = {"keys": [each.key for each in entries]}
                entries = self._ask("POST", "/_dbs_info", list[_Entry], keys)
            except PillowError as error:
                _raise_unless_unserved(error)
                self.way = Way.ONE_BY_ONE
        if self.way is Way.ONE_BY_ONE:
            return [found for each in entries for found in self._describe_one(each.key)]
        return [describe(each.key, each.info) for each in entries if each.info is not None]

    def _ask(self, method: str, path: str, type_: type[_Answer], body: object = None) -> _Answer:
        self._pace(1.0)
        return self._couch.json(method, path, type_, body=body, max_bytes=LIST_ANSWER_BYTES)

    def _describe_one(self, name: str) -> Sequence[Description]:
        """Return one database; nothing if it does not exist. If it can't be read, its digest is empty."""
        self._pace(_SINGLE)
        try:
            info = get_database_info(self._couch, name)
        except MissingError:
            return ()
        except (ForbiddenError, RejectedError, ServerError):  # its turn will say so
            return (Description(name),)
        except RetryableError as error:
            self._silent += 1
            if isinstance(error, AwayError | ThrottledError) or self._silent == SILENT_IN_A_ROW:
                raise
            return (Description(name),)
        self._silent = 0
        return (describe(name, info),)


def _quote(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _raise_unless_unserved(error: PillowError) -> None:
    """Raise an error again unless it means that the server does not support the request."""
    is_unserved = isinstance(error, MissingError | ForbiddenError) or (
        isinstance(error, RejectedError | ServerError) and error.status in _UNSERVED
    )
    if not is_unserved:
        raise error


def _to_not_listed(error: PillowError) -> NotListedError:
    remedy = "let the proxy in between pass `GET /_all_dbs`"
    if isinstance(error, ForbiddenError):
        remedy = "make the user a server administrator, or set `[chttpd] admin_only_all_dbs` to false"
    return NotListedError(
        f"The server does not list its databases for our user: {error.args[0]}",
        remedy=f"{remedy}; or write their names out in `databases`",
    )
