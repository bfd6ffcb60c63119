"""What to ask `_changes` for, and how its rows become batches. Pure.

CouchDB encodes the position of every row unless `seq_interval` says otherwise, which costs it a
third of its speed. Row r carries one when `(limit - r + 1) mod seq_interval = 0` (measured on
3.5.0), so a limit that is a multiple of the interval gives rows 1, 101, 201 ... a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from checkpoints import Seq
from pillows.feed.options import SourceOptions
from pillows.models import Change, ChangeBatch

#: Rows between two positions.
INTERVAL = 100

#: A page should not be larger, so that a stop can wait for its end.
PAGE_BYTES = 8 * 2**20

#: From this size on the position of every row is asked for: it is small beside a document.
LARGE_DOCUMENT_BYTES = 16 * 2**10

#: A batch is handed over when it is this large, even before a hundred rows.
BATCH_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One request of a catch-up.

    Attributes:
        limit: rows asked for.
        interval: rows between two positions; None for one in every row.
        include_docs: whether the documents come along.
    """

    limit: int
    interval: int | None
    include_docs: bool


def plan_page(source: SourceOptions, average_bytes: float, *, include_docs: bool) -> Page:
    """The next page, given how large documents were so far."""
    if not include_docs:
        return Page(limit=source.page, interval=INTERVAL, include_docs=False)
    fitting = int(PAGE_BYTES / max(average_bytes, 1.0))
    if average_bytes >= LARGE_DOCUMENT_BYTES:
        return Page(limit=max(1, min(fitting, source.page)), interval=None, include_docs=True)
    limit = max(INTERVAL, min(fitting - fitting % INTERVAL, source.page))
    return Page(limit=limit, interval=INTERVAL, include_docs=True)


def page_query(source: SourceOptions, since: Seq, page: Page) -> str:
    """The query of a catch-up request."""
    query = f"feed=normal&style=all_docs&limit={page.limit}&since={since.query}"
    if page.interval is not None:
        query += f"&seq_interval={page.interval}"
    if page.include_docs:
        query += "&include_docs=true"
    return query + filter_query(source)


def tail_query(source: SourceOptions, since: Seq, *, feed: str, limit: int | None = None) -> str:
    """The query of a request at the head of the feed, which the server ends when it is idle."""
    timeout = round(source.timeout * 1000)
    along = "" if source.documents == "bulk_get" else "&include_docs=true"
    query = f"feed={feed}&style=all_docs{along}&timeout={timeout}&since={since.query}"
    return query if limit is None else f"{query}&limit={limit}"


def filter_query(source: SourceOptions) -> str:
    """The part of a query that names the server's filter."""
    if source.selector is not None:
        return "&filter=_selector"
    if source.doc_ids is not None:
        return "&filter=_doc_ids"
    return f"&filter={quote('_design')}" if source.design else ""


def filter_body(source: SourceOptions, ids: Sequence[str] | None = None) -> bytes | None:
    """The body of a request with a filter that takes one; None: it is a GET.

    Args:
        source: how the database is read.
        ids: which of `doc_ids` to name; all of them by default.
    """
    if source.selector is not None:
        return msgspec.json.encode({"selector": source.selector})
    if source.doc_ids is not None:
        return msgspec.json.encode({"doc_ids": source.doc_ids if ids is None else ids})
    return None


class BatchCutter:
    """Collects changes and cuts batches right after a row with a position.

    Args:
        skip_design: leave design documents out.

    Attributes:
        rows, read_bytes: of everything that was added.
    """

    __slots__ = (
        "_changes",
        "_size_bytes",
        "_skip_design",
        "_whole",
        "_whole_bytes",
        "_whole_seq",
        "read_bytes",
        "rows",
    )

    def __init__(self, *, skip_design: bool) -> None:
        self.rows = 0
        self.read_bytes = 0
        self._skip_design = skip_design
        self._changes: list[Change] = []
        self._size_bytes = 0
        self._whole = 0
        self._whole_bytes = 0
        self._whole_seq: Seq | None = None

    def add(self, change: Change, size_bytes: int) -> ChangeBatch | None:
        """Takes a row, and gives a batch where one is full."""
        self.rows += 1
        self.read_bytes += size_bytes
        if change.id and not (self._skip_design and change.id.startswith("_design/")):
            self._changes.append(change)
        self._size_bytes += size_bytes
        if change.seq is not None:
            self._whole, self._whole_bytes = len(self._changes), self._size_bytes
            self._whole_seq = change.seq
            return self.cut() if self._whole >= INTERVAL or self._whole_bytes >= BATCH_BYTES else None
        return self._piece() if self._size_bytes >= BATCH_BYTES else None

    def _piece(self) -> ChangeBatch:
        """Rows without a position behind them: they weigh too much to wait for one."""
        batch = ChangeBatch(changes=self._changes, seq=None, size_bytes=self._size_bytes)
        self._changes, self._size_bytes, self._whole_seq = [], 0, None
        return batch

    def cut(self) -> ChangeBatch | None:
        """What may be handed over: the rows up to the last one with a position."""
        if self._whole_seq is None:
            return None
        batch = ChangeBatch(
            changes=self._changes[: self._whole], seq=self._whole_seq, size_bytes=self._whole_bytes
        )
        self._changes = self._changes[self._whole :]
        self._size_bytes -= self._whole_bytes
        self._whole_seq = None
        return batch

    def end(self, seq: Seq, *, caught_up: bool, pending: int | None) -> ChangeBatch:
        """The last rows of a response that was read to its end, with the position behind them."""
        changes, self._changes = self._changes, []
        return ChangeBatch(
            changes=changes, seq=seq, size_bytes=self._size_bytes, caught_up=caught_up, pending=pending
        )


def coalesce(batches: Sequence[ChangeBatch]) -> list[ChangeBatch]:
    """The same changes in fewer batches: a burst at the head comes in many small ones.

    None has many more than `INTERVAL` changes: what lies between two positions is seen again after a crash.
    One at the head stays the last of its batch: what came since would hide that the head was reached, and
    where somebody always writes a first pass would never be over.
    """
    whole: list[ChangeBatch] = []
    some: list[ChangeBatch] = []
    for batch in batches:
        some.append(batch)
        if batch.caught_up or sum(len(each.changes) for each in some) >= INTERVAL:
            whole.append(merge_batches(some))
            some = []
    return [*whole, merge_batches(some)] if some else whole


def merge_batches(batches: Sequence[ChangeBatch]) -> ChangeBatch:
    """Several batches in a row as one."""
    if len(batches) == 1:
        return batches[0]
    last = batches[-1]
    return ChangeBatch(
        changes=[change for batch in batches for change in batch.changes],
        seq=last.seq,
        size_bytes=sum(batch.size_bytes for batch in batches),
        caught_up=last.caught_up,
        pending=last.pending,
        asked_at=last.asked_at,
        purge_seq=next((batch.purge_seq for batch in reversed(batches) if batch.purge_seq), None),
    )
