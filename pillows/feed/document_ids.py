"""List the ids of chosen documents of a database, page by page.

Documents that are deleted are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from pillows.couch.client import LIST_ANSWER_BYTES, CouchClient
from pillows.couch.database_info import get_database_info

#: Ids of a page.
PAGE_IDS = 1000

#: The highest code point: CouchDB sorts ids by their bytes in UTF-8 (CouchDB docs, "/{db}/_all_docs").
_LAST_CHARACTER = "\U0010ffff"

#: Longest silence of the server: without an index `_find` reads the whole database for a page.
_FIND_SECONDS = 600.0


class _Row(msgspec.Struct):
    id: str


class _AllDocs(msgspec.Struct):
    rows: list[_Row]


class _Found(msgspec.Struct):
    docs: list[dict[str, Any]]
    bookmark: str | None = None


class IdPage(Struct, frozen=True, kw_only=True):
    """One page of ids.

    Attributes:
        ids: of documents that are not deleted.
        after: where the next page begins; None if this is the last.
    """

    ids: list[str]
    after: str | None


class DocumentIds:
    """Lists ids of one database. No method retries a failure.

    Args:
        couch: the server.
        database: its name.
    """

    def __init__(self, couch: CouchClient, database: str) -> None:
        self._couch = couch
        self._database = database
        couch.acquire()

    def list_prefix(self, prefix: str, after: str | None = None) -> IdPage:
        """Return a page of the ids that begin with a text, in order.

        Args:
            prefix: the text.
            after: from the page before.

        Raises:
            PillowError: as `CouchClient.json`.
        """
        start = prefix if after is None else after
        query = f"limit={PAGE_IDS + 1}&startkey={_quote(start)}&endkey={_quote(prefix + _LAST_CHARACTER)}"
        path = f"{self._couch.path(self._database, '_all_docs')}?{query}"
        rows = self._couch.json("GET", path, _AllDocs, max_bytes=LIST_ANSWER_BYTES).rows
        ids = [row.id for row in rows]
        more = len(ids) > PAGE_IDS
        if more:
            ids.pop()
        last = ids[-1] if ids else None
        return IdPage(ids=[id for id in ids if id != after], after=last if more else None)

    def list_selected(self, selector: Mapping[str, Any], after: str | None = None) -> IdPage:
        """Return a page of the ids of documents that match a Mango selector.

        Args:
            selector: as `_find` takes it.
            after: the bookmark from the page before.

        Raises:
            PillowError: as `CouchClient.json`.
        """
        body = {"selector": selector, "fields": ["_id"], "limit": PAGE_IDS}
        if after is not None:
            body["bookmark"] = after
        found = self._couch.json(
            "POST",
            self._couch.path(self._database, "_find"),
            _Found,
            body=body,
            max_bytes=LIST_ANSWER_BYTES,
            silent_seconds=_FIND_SECONDS,
        )
        is_last = not found.docs or found.bookmark in (None, "nil", after)
        return IdPage(ids=[doc["_id"] for doc in found.docs], after=None if is_last else found.bookmark)

    def count_copies(self) -> int | None:
        """Return how many copies of each document the cluster keeps; None if the server does not say.

        Raises:
            PillowError: as `CouchClient.json`.
        """
        return get_database_info(self._couch, self._database).copies

    def close(self) -> None:
        """Release the client."""
        self._couch.release()


def _quote(key: str) -> str:
    return quote(msgspec.json.encode(key), safe="")
