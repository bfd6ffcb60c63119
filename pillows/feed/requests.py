"""Build the requests to `_changes`. Pure.

CouchDB encodes the position of every row unless `seq_interval` says otherwise, which costs it a third of its
speed. Row r carries one when `(limit - r + 1) mod seq_interval = 0` (measured on 3.5.0),
so with a limit that is a multiple of the interval rows 1, 101, 201 ... carry a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from checkpoints import Seq
from pillows.feed.options import SourceOptions

#: Rows between two positions.
INTERVAL = 100

#: Intended size of a page, so that a stop can wait for its end. (`source.page` limits its rows.)
PAGE_BYTES = 8 * 2**20

#: Most rows of a page without documents: they are fetched while the next page is read, and until then wait.
IDS_ROWS = 2_000

#: From this average size on every row gets a position, which is small compared with a document.
LARGE_DOCUMENT_BYTES = 16 * 2**10


class Page(Struct, frozen=True, kw_only=True):
    """One request of a catch-up.

    Attributes:
        limit: rows to return.
        interval: rows between two positions; None for one in every row.
        include_docs: whether rows include the documents.
    """

    limit: int
    interval: int | None
    include_docs: bool


def plan_page(
    source: SourceOptions, average_bytes: float, *, include_docs: bool, most: int | None = None
) -> Page:
    """Return the size of the next page.

    Args:
        source: how the database is read.
        average_bytes: size of documents so far.
        include_docs: whether rows include the documents.
        most: most rows to request, rounded up to a row with a position; None for no limit.
    """
    rows = source.page if most is None else min(source.page, _round(most + INTERVAL - 1))
    if source.max_rate is not None:  # a page is read at full speed, and waited for afterwards
        rows = min(rows, _round(int(source.max_rate)))
    if not include_docs:
        return Page(limit=min(rows, IDS_ROWS), interval=INTERVAL, include_docs=False)
    fitting = int(PAGE_BYTES / max(average_bytes, 1.0))
    if average_bytes >= LARGE_DOCUMENT_BYTES:
        return Page(limit=max(1, min(fitting, rows)), interval=None, include_docs=True)
    return Page(limit=min(_round(fitting), rows), interval=INTERVAL, include_docs=True)


def _round(rows: int) -> int:
    """Return rows rounded down to a multiple of the interval, at least one."""
    return max(INTERVAL, rows - rows % INTERVAL)


def page_query(source: SourceOptions, since: Seq, page: Page) -> str:
    """Return the query of a catch-up request."""
    query = f"feed=normal&style=all_docs&limit={page.limit}&since={since.query}"
    if page.interval is not None:
        query += f"&seq_interval={page.interval}"
    if page.include_docs:
        query += "&include_docs=true"
    return query + filter_query(source)


def tail_query(source: SourceOptions, since: Seq, *, feed: str, limit: int | None = None) -> str:
    """Return the query of a request at the head of the feed, which the server ends when it is idle."""
    timeout = round(source.timeout * 1000)
    along = "" if source.documents == "bulk_get" else "&include_docs=true"
    query = f"feed={feed}&style=all_docs{along}&timeout={timeout}&since={since.query}"
    return query if limit is None else f"{query}&limit={limit}"


def filter_query(source: SourceOptions) -> str:
    """Return the part of a query that names the server's filter."""
    if source.selector is not None:
        return "&filter=_selector"
    if source.doc_ids is not None:
        return "&filter=_doc_ids"
    if source.filter_function is not None:
        arguments = {"filter": source.filter_function} | source.filter_arguments
        return f"&{urlencode(arguments)}"
    return f"&filter={quote('_design')}" if source.design else ""


def filter_body(source: SourceOptions, ids: Sequence[str] | None = None) -> bytes | None:
    """Return the body of a request, for a filter that needs one; None means a GET.

    Args:
        source: how the database is read.
        ids: the `doc_ids` to name; all by default.
    """
    if source.selector is not None:
        return msgspec.json.encode({"selector": source.selector})
    if source.doc_ids is not None:
        return msgspec.json.encode({"doc_ids": source.doc_ids if ids is None else ids})
    return None
