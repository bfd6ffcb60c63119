"""Read the first pass of a database from the list of its documents, where the feed is mostly deletions.

A row of a deleted document costs CouchDB about 22 us in the feed, a document about 120 us (measured on 3.5).
From five deletions for each document on, the list is faster. The order proves that nothing is missed:

1. the position of the feed is taken;
2. on a cluster, `join_overlap` passes: then every copy has the changes that the position covers;
3. the documents are listed by `_all_docs`, and each is fetched by its id in its current state;
4. the feed is read from the position.

Changes during the listing arrive again with the feed. Documents deleted before the position are not listed;
they have no rows, since the outputs were empty. A position in the listing is a `Seq` too, so the checkpoint
holds it like any other: the position of the feed, and the last id under the watermark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Seq
from pillows.clock import Clock
from pillows.couch.database_info import DatabaseInfo
from pillows.errors import RetryableError
from pillows.feed.brake import Brake
from pillows.feed.parsing.changes_parser import LineSplitter, MalformedFeedError
from pillows.feed.reader_task import ReadCursor
from pillows.feed.requests import INTERVAL
from pillows.feed.source_database import SourceDatabase
from pillows.models import Change, ChangeBatch

#: Deletions for each document from which on the documents are listed.
MIN_DELETED_RATIO = 5

_MARK = "_all_docs"

#: How the JSON of a position in a listing begins; no position of a feed does.
LISTED = f'["{_MARK}",'


class ListingPosition(Struct, frozen=True, kw_only=True):
    """A position in the list of documents.

    Attributes:
        token: the position of the feed that was taken before the listing.
        after: the last id that was handed over; None at the beginning.
    """

    token: Seq
    after: str | None = None

    @classmethod
    def parse(cls, seq: Seq) -> ListingPosition | None:
        """Return the position that a `Seq` holds; None if it is one of a feed."""
        if not seq.json.startswith(LISTED):
            return None
        _, token, after = msgspec.json.decode(seq.json)
        return cls(token=Seq.of(token), after=after)

    def to_seq(self) -> Seq:
        """Return the position as a `Seq`."""
        return Seq.of([_MARK, self.token.value, self.after])


def is_worth_listing(info: DatabaseInfo, page: int) -> bool:
    """Return whether a first pass reads the list faster than the feed.

    Args:
        info: of the database.
        page: rows of a request to the feed; fewer deletions cost nothing.
    """
    documents, deleted = info.doc_count, info.doc_del_count
    return (
        documents is not None
        and deleted is not None
        and deleted > page
        and deleted > MIN_DELETED_RATIO * documents
    )


class _Value(msgspec.Struct):
    rev: str


class _Row(msgspec.Struct):
    id: str
    value: _Value


class _Head(msgspec.Struct):
    total_rows: int | None = None
    offset: int | None = None


class _Whole(msgspec.Struct):
    rows: list[_Row]
    total_rows: int | None = None
    offset: int | None = None


class ListParser:
    """Parses the response of `_all_docs`, which CouchDB sends with one row a line. Pure.

    Attributes:
        left: rows that have not been read; None if the server gave no numbers.
        is_complete: whether the end of the response was read.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.is_complete = False
        self._lines = LineSplitter()
        self._began = False

    def feed(self, block: bytes) -> Iterator[tuple[str, str]]:
        """Yield id and winning revision of the rows that a block completes.

        Raises:
            MalformedFeedError: it is not such a response, or it holds an error.
        """
        for line in self._lines.feed(block):
            text = line.strip().rstrip(b",")
            if not text:
                continue
            try:
                yield from self._parse(text)
            except msgspec.MsgspecError as error:
                raise MalformedFeedError(f"A row of `_all_docs` can't be read: {error}") from error

    def _parse(self, text: bytes) -> Iterator[tuple[str, str]]:
        if text == b"]}":
            self.is_complete = True
        elif self._began:
            row = msgspec.json.decode(text, type=_Row)
            self.left = None if self.left is None else self.left - 1
            yield row.id, row.value.rev
        elif text.endswith(b"["):
            self._begin(msgspec.json.decode(text + b"]}", type=_Head))
        else:  # a server or proxy that sends all on one line
            whole = msgspec.json.decode(text, type=_Whole)
            self._begin(_Head(whole.total_rows, whole.offset))
            self.is_complete = True
            for row in whole.rows:
                self.left = None if self.left is None else self.left - 1
                yield row.id, row.value.rev

    def _begin(self, head: _Head) -> None:
        self._began = True
        if head.total_rows is not None and head.offset is not None:
            self.left = head.total_rows - head.offset


class Listing:
    """Lists the documents of one database.

    Args:
        source: the database.
        clock: for the wait on a cluster.
    """

    def __init__(self, source: SourceDatabase, clock: Clock) -> None:
        self._source = source
        self._options = source.options
        self._clock = clock
        self._brake = Brake(self._options.max_rate, self._options.quiet_hours, clock)

    def find_first(self) -> Seq:
        """Return where a pass into empty outputs begins: in a listing if that is worth it, or at 0.

        Raises:
            PillowError: as `SourceLookup`.
        """
        if self._options.is_filtered_by_server or not is_worth_listing(
            self._source.read_info(), self._options.page
        ):
            return Seq.BEGINNING
        return ListingPosition(token=self._source.probe("now").seq).to_seq()

    def run(self, cursor: ReadCursor, position: ListingPosition) -> None:
        """List the documents from a position; afterwards the feed continues from the token.

        Raises:
            RetryableError: the response was cut off; its complete rows were handed over.
            FatalError: reading cannot continue.
        """
        if position.after is None and self._source.read_info().copies != 1:
            self._clock.wait(cursor.stop, self._options.join_overlap)
        if cursor.stop.is_set():
            return
        try:
            self._read(cursor, position)
        except RetryableError:
            cursor.loader.drain()  # complete rows are valid
            raise
        cursor.loader.drain()

    def _read(self, cursor: ReadCursor, position: ListingPosition) -> None:
        parser = ListParser()
        changes: list[Change] = []
        began_at = self._clock.monotonic()
        with self._source.list_documents(
            _make_query(position), silent_seconds=self._options.timeout
        ) as response:
            cursor.identity.check()
            for block in response.blocks():
                for id, rev in parser.feed(block):
                    if id == position.after or (self._options.skip_design and id.startswith("_design/")):
                        continue
                    changes.append(make_change(id, rev))
                    if len(changes) == INTERVAL:
                        position = self._hand_over(cursor, position, changes, parser.left)
                        self._brake.slow_down(len(changes), self._clock.monotonic() - began_at, cursor.stop)
                        changes, began_at = [], self._clock.monotonic()
                if cursor.stop.is_set():
                    return
        if changes:
            self._hand_over(cursor, position, changes, parser.left)
        if not parser.is_complete:
            raise RetryableError("The list of documents was cut before its end.")
        self._finish(cursor, position)

    def _hand_over(
        self, cursor: ReadCursor, position: ListingPosition, changes: list[Change], left: int | None
    ) -> ListingPosition:
        position = replace(position, after=changes[-1].id)
        size_bytes = sum(len(change.id) for change in changes)
        cursor.loader.add(
            ChangeBatch(changes=changes, seq=position.to_seq(), size_bytes=size_bytes, pending=left or None)
        )
        return position

    def _finish(self, cursor: ReadCursor, position: ListingPosition) -> None:
        """Go on with the feed where it was before the listing began."""
        cursor.loader.add(ChangeBatch(changes=(), seq=position.token))
        cursor.since = position.token


def make_change(id: str, rev: str) -> Change:
    """Return a change for a listed document.

    Its leaf version is 0: the list shows the winner only, and all leaves are fetched. A document that the
    filter drops by its id alone is not fetched: it has no rows, and any version of it counts as newer.
    """
    return Change(id=id, revs=(rev,), leaf_version=0)


def _make_query(position: ListingPosition) -> str:
    if position.after is None:
        return ""
    key: Any = msgspec.json.encode(position.after)
    return f"startkey={quote(key, safe='')}"
