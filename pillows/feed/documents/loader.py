"""Add documents to batches by several concurrent requests, and keep the batches' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import gevent
from msgspec import Struct
from msgspec.structs import replace

from pillows.couch.http.response import TooLargeError, UnreadableError
from pillows.feed.documents.fetcher import (
    GROUP_BYTES,
    GROUP_DOCUMENTS,
    MAX_GROUP_BYTES,
    FetchKey,
    fetch_key,
    to_defect,
)
from pillows.feed.documents.throttle import ConcurrencyLimit
from pillows.models import Change, ChangeBatch

#: Weight of the newest group in the running average of document sizes.
_NEWEST = 0.3

#: Assumed size of documents before any was seen.
FIRST_AVERAGE_BYTES = 4 * 2**10

#: Changes that wait for one request at most, even if few of their documents are wanted.
MAX_CHANGES = 2000

#: The outcome of a request: an error is a value, since gevent prints what a greenlet raises.
Fetched = dict[FetchKey, Change] | Exception


class AverageSize:
    """The size of documents, as a running average.

    Attributes:
        average_bytes: of one document.
    """

    def __init__(self) -> None:
        self.average_bytes = float(FIRST_AVERAGE_BYTES)
        self._weight = 1.0  # the first documents count alone

    def record(self, documents: int, size_bytes: int) -> None:
        """Add documents with their total size."""
        if documents:
            self.average_bytes += self._weight * (size_bytes / documents - self.average_bytes)
            self._weight = _NEWEST

    @property
    def group(self) -> int:
        """How many documents to fetch with one request."""
        return max(1, min(GROUP_DOCUMENTS, int(GROUP_BYTES / max(self.average_bytes, 1.0))))


class _Group(Struct, kw_only=True):
    """Pieces of batches whose documents are fetched with one request."""

    pieces: list[ChangeBatch]
    wanted: list[Change]
    request: gevent.Greenlet[[Sequence[Change]], Fetched] | None = None

    @property
    def is_ready(self) -> bool:
        return self.request is None or self.request.ready()

    @property
    def changes(self) -> int:
        return sum(len(piece.changes) for piece in self.pieces)


class DocumentLoader:
    """Fetches the documents of batches and hands the batches over, in the order in which they were added.

    A batch may be handed over in several pieces; the last one has its position.

    Args:
        fetch: fetches documents (`DocumentFetcher.fill` or `DocumentFetcher.read_current`).
        put: takes a piece with its documents; may block.
        wants: whether a change's document is needed at all.
        limit: requests at a time.
        sizes: the average size of documents, updated by those that arrive.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[Change]], dict[FetchKey, Change]],
        put: Callable[[ChangeBatch], None],
        *,
        wants: Callable[[Change], bool],
        limit: ConcurrencyLimit,
        sizes: AverageSize,
    ) -> None:
        self._fetch = fetch
        self._put = put
        self._wants = wants
        self._limit = limit
        self._sizes = sizes
        self._open = _Group(pieces=[], wanted=[])
        self._groups: deque[_Group] = deque()
        self._failure: Exception | None = None

    def add(self, batch: ChangeBatch) -> None:
        """Add a batch, and yield the batches that are ready.

        Raises:
            RetryableError: a fetch failed; nothing from there on is handed over.
        """
        begin = 0
        for index, change in enumerate(batch.changes):
            if change.raw is None and not change.deleted and self._wants(change):
                self._open.wanted.append(change)
                if len(self._open.wanted) >= self._sizes.group:
                    self._open.pieces.append(_cut_piece(batch, begin, index + 1))
                    self._send_request()
                    begin = index + 1
        if begin < len(batch.changes) or not batch.changes:
            self._open.pieces.append(_cut_piece(batch, begin, len(batch.changes)))
        if self._open.pieces and (not self._open.wanted or self._open.changes >= MAX_CHANGES):
            self._send_request()  # nothing to wait for, or enough that waits
        while self._failure is None and self._groups and self._groups[0].is_ready:
            self._deliver_first()

    def drain(self) -> None:
        """Hand over everything that was added.

        Raises:
            RetryableError: as `add`.
        """
        if self._failure is not None:
            raise self._failure
        if self._open.pieces:
            self._send_request()
        while self._groups:
            self._deliver_first()

    def close(self) -> None:
        """Kill every request."""
        gevent.killall([group.request for group in self._groups if group.request is not None])
        self._groups.clear()

    def _send_request(self) -> None:
        """Send the open group's request, once few enough others are under way."""
        if self._failure is not None:
            raise self._failure
        group, self._open = self._open, _Group(pieces=[], wanted=[])
        while self._is_full():
            self._deliver_first()
        if group.wanted:
            group.request = gevent.spawn(self._try_to_fetch, group.wanted)
        self._groups.append(group)

    def _is_full(self) -> bool:
        """Return whether enough requests are in flight, including answers that wait for an earlier one."""
        requests = self._limit.requests
        return len(self._groups) >= 2 * requests or (
            sum(not group.is_ready for group in self._groups) >= requests
        )

    def _deliver_first(self) -> None:
        group = self._groups[0]
        self._hand_over(group.pieces, group.wanted, group.request.get() if group.request is not None else {})
        self._groups.popleft()  # only now: until then `close` must find its request

    def _hand_over(self, pieces: Sequence[ChangeBatch], wanted: Sequence[Change], fetched: Fetched) -> None:
        if isinstance(fetched, TooLargeError | UnreadableError):
            if len(wanted) > 1:
                self._hand_over_halves(pieces, wanted)
                return
            fetched = {fetch_key(wanted[0]): to_defect(wanted[0], fetched)}
        if isinstance(fetched, Exception):
            # Later batches must never be handed over: a position would cover the gap.
            self._failure = fetched
            raise fetched
        self._sizes.record(len(fetched), sum(len(c.raw) for c in fetched.values() if c.raw is not None))
        for piece in pieces:
            self._put(_with_documents(piece, fetched))

    def _hand_over_halves(self, pieces: Sequence[ChangeBatch], wanted: Sequence[Change]) -> None:
        """Fetch half as many documents at a time: they have grown, and memory must stay bounded."""
        self._sizes.record(len(wanted), MAX_GROUP_BYTES)
        for half in _halve(pieces):
            keys = {fetch_key(change) for piece in half for change in piece.changes}
            missing = [change for change in wanted if fetch_key(change) in keys]
            self._hand_over(half, missing, self._try_to_fetch(missing) if missing else {})

    def _try_to_fetch(self, changes: Sequence[Change]) -> Fetched:
        try:
            return self._fetch(changes)
        except Exception as error:  # noqa: BLE001 - raised by `_hand_over`
            return error


def _cut_piece(batch: ChangeBatch, begin: int, end: int) -> ChangeBatch:
    """Return a part of a batch; only its last part has the position."""
    if (begin, end) == (0, len(batch.changes)):
        return batch
    if end == len(batch.changes):
        return replace(batch, changes=batch.changes[begin:])
    return ChangeBatch(changes=batch.changes[begin:end], seq=None, more_follow=True)


def _halve(pieces: Sequence[ChangeBatch]) -> tuple[list[ChangeBatch], list[ChangeBatch]]:
    """Return the same changes in two groups."""
    if len(pieces) > 1:
        middle = len(pieces) // 2
        return list(pieces[:middle]), list(pieces[middle:])
    (batch,) = pieces
    middle = len(batch.changes) // 2
    return [_cut_piece(batch, 0, middle)], [_cut_piece(batch, middle, len(batch.changes))]


def _with_documents(batch: ChangeBatch, fetched: dict[FetchKey, Change]) -> ChangeBatch:
    if not fetched:
        return batch
    changes = [fetched.get(fetch_key(change), change) for change in batch.changes]
    size_bytes = sum(len(c.raw) if c.raw is not None else len(c.id) for c in changes)
    return replace(batch, changes=changes, size_bytes=size_bytes)
