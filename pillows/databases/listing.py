"""List the databases of a server with their descriptions, a page at a time.

Three ways, found out by asking: `GET /_dbs_info` (CouchDB 3.2), `GET /_all_dbs` with `POST /_dbs_info` (2.2),
`GET /_all_dbs` with one `GET /{db}` each. All but the last are for server administrators; other users
can only ask for databases by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from pillows.couch.client import LIST_ANSWER_BYTES, CouchClient
from pillows.couch.database_info import DatabaseInfo, get_database_info
from pillows.couch.errors import ForbiddenError, MissingError, RejectedError, ServerError
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity, count_purges

_Answer = TypeVar("_Answer")

#: Weight of a request that opens one database instead of a hundred.
_SINGLE = 0.1

#: Databases in one request: the most that `POST /_dbs_info` takes (`max_db_number_for_dbs_info_req`).
PAGE = 100


class _Entry(msgspec.Struct):
    key: str
    info: DatabaseInfo | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A database as a sweep found it.

    Attributes:
        name: its name.
        digest: of its position, its creation time and its purges; empty if the server did not describe it. An
            equal one means that nothing has happened. A different one proves nothing: each node has its own.
        identity: its creation time and the number of its purges; empty if the server did not describe it.
    """

    name: str
    digest: bytes = b""
    identity: str = ""


def describe(name: str, info: DatabaseInfo) -> Description:
    """Return the description of a database."""
    identity = f"{info.instance_start_time or ''}/{count_purges(str(info.purge_seq or ''))}"
    text = msgspec.json.encode([info.update_seq, identity])
    return Description(name, blake2b(text, digest_size=8).digest(), identity)


def halve(ranges: Sequence[tuple[str, str]], known: Iterable[str]) -> list[tuple[str, str]]:
    """Return ranges of names, those of many databases in two parts, so that two can be asked for at once.

    Both parts hold the name in the middle.

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


class NotAdminError(FatalError):
    """The server lists its databases for administrators only."""


class DatabaseList:
    """Lists the databases of one server.

    Args:
        couch: the server.
        pace: called before each request with its weight; waits so that the server can keep up.

    Attributes:
        way: how it is asked: 0 for `GET /_dbs_info`, 1 for `POST /_dbs_info`, 2 for `GET /{db}`.
    """

    def __init__(self, couch: CouchClient, pace: Callable[[float], None] = lambda _: None) -> None:
        self._couch = couch
        self._pace = pace
        self.way = 0

    def pages(self, start: str, end: str) -> Iterator[Sequence[Description]]:
        """Yield the databases from one name to another, in order, a page for each request or two.

        Raises:
            NotAdminError: the server lists its databases for administrators only.
            RetryableError: the server is away or busy.
            AccessError: it does not let us in.
        """
        after: str | None = None
        while True:
            page = self._page(after or start, end)
            fresh = [each for each in page if after is None or each.name > after]
            if fresh:
                yield fresh
            if len(page) <= PAGE or not fresh:
                return
            after = fresh[-1].name

    def describe_some(self, names: Sequence[str]) -> Iterator[Sequence[Description]]:
        """Yield the databases of these names that exist, each with one request.

        Raises:
            RetryableError, AccessError: as `pages`; what concerns one database alone is not raised.
        """
        for name in names:
            yield self._describe_one(name)

    def _page(self, start: str, end: str) -> Sequence[Description]:
        """Return one page, with the row of `start` itself if it exists: one more than `PAGE` rows at most."""
        query = urlencode({"startkey": _quote(start), "endkey": _quote(end), "limit": PAGE + 1})
        if self.way == 0:
            try:
                return _describe_all(self._ask("GET", f"/_dbs_info?{query}", list[_Entry]))
            except (MissingError, RejectedError) as error:
                _raise_unless_unknown(error)
                self.way = 1
        names = self._ask("GET", f"/_all_dbs?{query}", list[str])
        parts = (names[begin : begin + PAGE] for begin in range(0, len(names), PAGE))
        return [each for some in parts for each in self._describe(some)]

    def _describe(self, names: Sequence[str]) -> Sequence[Description]:
        if self.way == 1:
            try:
                keys = {"keys": list(names)}
                return _describe_all(self._ask("POST", "/_dbs_info", list[_Entry], keys))
            except (MissingError, RejectedError) as error:
                _raise_unless_unknown(error)
                self.way = 2
        return [each for name in names for each in self._describe_one(name)]

    def _ask(self, method: str, path: str, type_: type[_Answer], body: object = None) -> _Answer:
        self._pace(1.0)
        try:
            return self._couch.json(method, path, type_, body=body, max_bytes=LIST_ANSWER_BYTES)
        except ForbiddenError as error:
            raise _to_not_admin(error) from None

    def _describe_one(self, name: str) -> Sequence[Description]:
        """Return one database, or nothing if it does not exist. One that is in trouble has no digest."""
        self._pace(_SINGLE)
        try:
            info = get_database_info(self._couch, name)
        except MissingError:
            return ()
        except (ForbiddenError, RejectedError, ServerError):  # its turn will say so
            return (Description(name),)
        return (describe(name, info),)


def _describe_all(entries: Sequence[_Entry]) -> Sequence[Description]:
    return [describe(entry.key, entry.info) for entry in entries if entry.info is not None]


def _quote(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _raise_unless_unknown(error: MissingError | RejectedError) -> None:
    """Raise an error unless it says that the server does not know the request: 404, 405, or 400 (1.x)."""
    if isinstance(error, RejectedError) and error.status not in (400, 404, 405):
        raise error


def _to_not_admin(error: ForbiddenError) -> NotAdminError:
    return NotAdminError(
        f"The server lists its databases for administrators only: {error.args[0]}",
        remedy="make the user a server administrator, or set `[chttpd] admin_only_all_dbs` to false",
    )
