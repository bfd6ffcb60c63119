"""Puts documents into batches of ids, several requests at a time, and keeps the batches' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import gevent

from pillows.couch.response import TooLargeError
from pillows.errors import RetryableError
from pillows.feed.document_fetcher import GROUP_BYTES, GROUP_DOCUMENTS, MAX_GROUP_BYTES, FetchKey, fetch_key
from pillows.feed.throttle import ConcurrencyLimit
from pillows.models import Change, ChangeBatch

#: Weight of the newest group in the running average of document sizes.
_NEWEST = 0.3

#: How large documents are taken to be before any was seen.
FIRST_AVERAGE_BYTES = 4 * 2**10


class AverageSize:
    """How large documents are, as a running average.

    Attributes:
        average_bytes: of one document.
    """

    def __init__(self) -> None:
        self.average_bytes = float(FIRST_AVERAGE_BYTES)
        self._weight = 1.0  # the first look counts alone

    def saw(self, documents: int, size_bytes: int) -> None:
        """Some documents came, with so many bytes together."""
        if documents:
            self.average_bytes += self._weight * (size_bytes / documents - self.average_bytes)
            self._weight = _NEWEST

    @property
    def group(self) -> int:
        """How many documents to fetch with one request."""
        return max(1, min(GROUP_DOCUMENTS, int(GROUP_BYTES / max(self.average_bytes, 1.0))))


#: So many changes wait for one request, however few of their documents are wanted.
MAX_CHANGES = 2000

#: What became of a request: an error is a value, since gevent prints what a greenlet raises.
Fetched = dict[FetchKey, Change] | Exception


@dataclass(slots=True, kw_only=True)
class _Group:
    """Pieces of batches whose documents are fetched with one request."""

    pieces: list[ChangeBatch]
    fetch_key: list[Change]
    request: gevent.Greenlet[[Sequence[Change]], Fetched] | None = None

    @property
    def ready(self) -> bool:
        return self.request is None or self.request.ready()

    @property
    def changes(self) -> int:
        return sum(len(piece.changes) for piece in self.pieces)


class DocumentLoader:
    """Fetches the documents of batches and hands the batches on, in the order in which they came.

    A batch may be handed on in several pieces; the last one has its position.

    Args:
        fetch: fetches documents (`DocumentFetcher.fill` or `DocumentFetcher.current`).
        put: takes a piece with its documents; may block.
        wants: whether a change's document is needed at all.
        limit: how many requests at a time.
        sizes: how large documents are; told of those that came.
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
        self._open = _Group(pieces=[], fetch_key=[])
        self._groups: deque[_Group] = deque()
        self._failure: Exception | None = None

    def add(self, batch: ChangeBatch) -> None:
        """Takes a batch, and hands on what is ready.

        Raises:
            RetryableError: a fetch failed; nothing from there on is handed on.
        """
        begin = 0
        for index, change in enumerate(batch.changes):
            if change.raw is None and not change.deleted and self._wants(change):
                self._open.fetch_key.append(change)
                if len(self._open.fetch_key) >= self._sizes.group:
                    self._open.pieces.append(_piece(batch, begin, index + 1))
                    self._request()
                    begin = index + 1
        if begin < len(batch.changes) or not batch.changes:
            self._open.pieces.append(_piece(batch, begin, len(batch.changes)))
        if not self._open.fetch_key or self._open.changes >= MAX_CHANGES:
            self._request()  # nothing to wait for, or enough that waits
        self._hand_on()

    def flush(self) -> None:
        """Sends the request for what was taken last.

        Raises:
            As `add`.
        """
        self._request()
        self._hand_on()

    def drain(self) -> None:
        """Hands on everything that was taken.

        Raises:
            As `add`.
        """
        self.flush()
        while self._groups:
            self._deliver_first()

    def close(self) -> None:
        """Ends every request."""
        gevent.killall([group.request for group in self._groups if group.request is not None])
        self._groups.clear()

    def _request(self) -> None:
        """Sends the open group's request, once there are few enough others."""
        if self._failure is not None:
            raise self._failure
        group, self._open = self._open, _Group(pieces=[], fetch_key=[])
        while self._crowded():
            self._deliver_first()
        if group.fetch_key:
            group.request = gevent.spawn(self._attempt, group.fetch_key)
        self._groups.append(group)

    def _crowded(self) -> bool:
        """Whether enough is asked for; also what waits for an earlier answer, which may be slow."""
        width = self._limit.requests
        return len(self._groups) >= 2 * width or sum(not other.ready for other in self._groups) >= width

    def _hand_on(self) -> None:
        while self._failure is None and self._groups and self._groups[0].ready:
            self._deliver_first()

    def _deliver_first(self) -> None:
        self._deliver(self._groups[0])
        self._groups.popleft()  # only now: until then `close` must find its request

    def _deliver(self, group: _Group) -> None:
        found = group.request.get() if group.request is not None else {}
        self._give(group.pieces, group.fetch_key, found)

    def _give(self, pieces: Sequence[ChangeBatch], asked: Sequence[Change], found: Fetched) -> None:
        if isinstance(found, TooLargeError) and len(asked) > 1:
            self._give_halves(pieces, asked)
            return
        if isinstance(found, TooLargeError):
            found = RetryableError(f"The document {asked[0].id!r} is too large to be read.")
        if isinstance(found, Exception):
            # Whatever is behind it must never be handed on: a position would cover the gap.
            self._failure = found
            raise found
        self._sizes.saw(len(found), sum(len(c.raw) for c in found.values() if c.raw is not None))
        for piece in pieces:
            self._put(_with_documents(piece, found))

    def _give_halves(self, pieces: Sequence[ChangeBatch], asked: Sequence[Change]) -> None:
        """Documents grew: half as many at a time, so that memory stays bounded."""
        self._sizes.saw(len(asked), MAX_GROUP_BYTES)
        for half in _halves(pieces):
            names = {fetch_key(change) for piece in half for change in piece.changes}
            missing = [change for change in asked if fetch_key(change) in names]
            self._give(half, missing, self._attempt(missing) if missing else {})

    def _attempt(self, changes: Sequence[Change]) -> Fetched:
        try:
            return self._fetch(changes)
        except Exception as error:  # noqa: BLE001 - raised again by `_deliver`
            return error


def _piece(batch: ChangeBatch, begin: int, end: int) -> ChangeBatch:
    """A part of a batch; only its last part has the position behind it."""
    if (begin, end) == (0, len(batch.changes)):
        return batch
    if end == len(batch.changes):
        return replace(batch, changes=batch.changes[begin:])
    return ChangeBatch(changes=batch.changes[begin:end], seq=None)


def _halves(pieces: Sequence[ChangeBatch]) -> tuple[list[ChangeBatch], list[ChangeBatch]]:
    """The same changes in two groups."""
    if len(pieces) > 1:
        half = len(pieces) // 2
        return list(pieces[:half]), list(pieces[half:])
    (batch,) = pieces
    half = len(batch.changes) // 2
    return [_piece(batch, 0, half)], [_piece(batch, half, len(batch.changes))]


def _with_documents(batch: ChangeBatch, found: dict[FetchKey, Change]) -> ChangeBatch:
    if not found:
        return batch
    changes = [found.get(fetch_key(change), change) for change in batch.changes]
    size_bytes = sum(len(c.raw) if c.raw is not None else len(c.id) for c in changes)
    return replace(batch, changes=changes, size_bytes=size_bytes)
