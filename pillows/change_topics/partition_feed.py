"""A feed of one partition of a topic, whose records name the documents to read.

A record names a document that has changed, and holds no content: the current document is read from CouchDB.
So it does no harm if a record is repeated, is late or is in another partition, or if compaction has removed
it because the document has a later one.

A request names a document, too, which one pillow writes again.

A position is the offset of the next record, as a number. The beginning is the first record that there is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import OFFSET_BEGINNING, KafkaError
from confluent_kafka import Message as LibraryMessage
from gevent.event import Event
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Seq
from pillows.change_topics.lag import Lag
from pillows.change_topics.records import (
    DATABASE_KEY,
    IDENTITY,
    PurgeRecord,
    decode_change,
    decode_purge,
    order_purges,
)
from pillows.change_topics.requests import decode_request, is_request
from pillows.clock import Clock
from pillows.errors import InvalidSeqError, RetryableError
from pillows.feed.base import PURGED_REV, SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity, make_recreated_error
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.documents.fetcher import LaggingError
from pillows.models import Change, ChangeBatch, Document
from pillows.retry.backoff import Backoff


class PartitionReader(Protocol):
    """Reads the records of one partition."""

    @property
    def trouble(self) -> str | None:
        """Why no records arrive; None while they do."""

    @property
    def polled_at(self) -> float:
        """Monotonic seconds of the last sign of life."""

    def seek(self, offset: int) -> None:
        """Read from the given offset. Records read before the call are dropped.

        Raises:
            RetryableError: the partition can't be read now.
        """

    def take(self, seconds: float) -> Sequence[LibraryMessage]:
        """Return the records that have arrived; wait up to `seconds` for the first.

        They include the client library's notes: the end was reached, or an offset does not exist.
        """

    def wake(self) -> None:
        """End a `take` that waits."""

    def end_offset(self) -> int | None:
        """Return the offset after the last record; None if it is not known."""


class _Piece(Struct, frozen=True):
    """Records that are handed over together.

    Attributes:
        changes: the documents to look at.
        next_offset: behind the last record.
        at_end: whether that is the end of the partition.
        purge: what the reader has noted here of the source's purges; None if nothing.
        least_epoch: as `ChangeBatch.least_epoch`.
    """

    changes: Sequence[Change]
    next_offset: int
    at_end: bool = False
    purge: PurgeRecord | None = None
    least_epoch: int = 0


class PartitionFeed:
    """The changes of one partition. See `Feed` for the contract of each method.

    Args:
        reader: reads the partition.
        couch: the database, from which the documents are read.
        pillow: the pillow's name: requests for others are ignored.
        clock: for waits.
        skip_design: leave design documents out.
    """

    def __init__(
        self,
        reader: PartitionReader,
        couch: CouchFeed,
        *,
        pillow: str,
        clock: Clock,
        skip_design: bool = True,
    ) -> None:
        self._reader = reader
        self._couch = couch
        self._pillow = pillow
        self._clock = clock
        self._skip_design = skip_design
        self._failure: str | None = None
        self._lag = Lag(couch, clock)
        self._purge_seq: str | None = None  # the last that was handed over
        self._is_unmarked = False  # whether it may lack the mark of how often the source went back

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last sign of life of the reader."""
        return self._reader.polled_at

    @property
    def trouble(self) -> str | None:
        """Why the feed waits for a retry; None if it does not."""
        return self._failure or self._couch.trouble or self._reader.trouble

    def identify(self) -> DatabaseIdentity:
        """Read the database's identity; a failure is not retried."""
        return self._couch.identify()

    def mark(self) -> bool:
        """Write our identity token to the database, if that is configured; a failure is not retried."""
        return self._couch.mark()

    def start(self) -> Seq:
        """Return the beginning: the topic names every document of the database."""
        return Seq.BEGINNING

    def find_first(self) -> Seq:
        """Return the beginning."""
        return Seq.BEGINNING

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Read documents' leaf versions, by a quorum."""
        return self._couch.leaves(ids)

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """Read the documents' current state with their JSON; a failure is not retried."""
        return self._couch.current(ids)

    def fetch(self, change: Change) -> Document:
        """Fetch the document of a change that came without one; a failure is not retried."""
        return self._couch.fetch(change)

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Read an attachment; a failure is not retried."""
        return self._couch.attachment(id, rev, name, max_bytes)

    def pending(self, since: Seq) -> int | None:
        """Return how many offsets follow a position; None if unknown. Some of them have no record."""
        end = self._reader.end_offset()
        return None if end is None else max(0, end - to_offset(since))

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Yield the changes from a position on, until `stop` is set."""
        self._purge_seq = identity.purge_seq if identity else None
        # At the beginning of a pass the source has told it, and no record.
        self._is_unmarked = since == Seq.BEGINNING and order_purges(self._purge_seq or "")[0] == 0
        yield from self._seek(since, stop)

        def wake(_: Event) -> None:
            self._reader.wake()

        stop.rawlink(wake)
        try:
            while not stop.is_set():
                taken = self._reader.take(TICK_SECONDS)
                if not taken:
                    yield SIGN_OF_LIFE
                for piece in self._cut(taken, identity):
                    yield from self._load(piece, identity, stop)
                    if stop.is_set():
                        return
        finally:
            stop.unlink(wake)

    def close(self) -> None:
        """Close every connection to CouchDB. May be called twice."""
        self._couch.close()

    def _seek(self, since: Seq, stop: Event) -> Iterator[ChangeBatch]:
        offset = OFFSET_BEGINNING if since == Seq.BEGINNING else to_offset(since)
        backoff = Backoff()
        while not stop.is_set():
            try:
                self._reader.seek(offset)
            except RetryableError as error:
                yield from self._pause(error, backoff, stop)
            else:
                self._failure = None
                return

    def _cut(self, taken: Sequence[LibraryMessage], identity: DatabaseIdentity | None) -> Iterator[_Piece]:
        """Yield the records in pieces whose documents fit into memory."""
        changes: dict[str, Change] = {}  # by id: the last record of a document will do
        cut_at = next_offset = least_epoch = 0
        for message in taken:
            at_end, purge = False, None
            if (error := message.error()) is not None:
                next_offset, at_end = _check_end(message, error), True
            else:
                next_offset = (message.offset() or 0) + 1
                key, value = message.key() or b"", message.value() or b""
                if key == DATABASE_KEY:
                    purge = None if _is_foreign(_find_identity(message), identity) else decode_purge(value)
                elif is_request(key):
                    request = decode_request(key, value)
                    if request.pillow == self._pillow:
                        least_epoch = max(least_epoch, request.epoch)
                        if self._is_read(request.id):  # a change before it says which version to expect
                            changes.setdefault(request.id, _to_look_at(request.id))
                else:
                    change = _to_change(decode_change(key, value), _find_identity(message), identity)
                    if self._is_read(change.id):
                        changes[change.id] = change
            if at_end or purge is not None or len(changes) >= self._couch.documents_at_once:
                yield _Piece(
                    list(changes.values()), next_offset, at_end=at_end, purge=purge, least_epoch=least_epoch
                )
                changes, cut_at = {}, next_offset
        if next_offset > cut_at:
            yield _Piece(list(changes.values()), next_offset, least_epoch=least_epoch)

    def _is_read(self, id: str) -> bool:
        return id != "" and not (self._skip_design and id.startswith("_design/"))

    def _load(self, piece: _Piece, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        """Yield a piece with its documents. Retry until it is read: the order of pieces never changes."""
        backoff = Backoff()
        changes = piece.changes
        self._lag.begin()
        loaded: list[Change] | None = None
        while loaded is None:
            try:
                changes = self._lag.expect(changes)
                loaded = self._couch.load_current(changes, identity) if changes else []
            except RetryableError as error:
                if isinstance(error, LaggingError):
                    self._lag.note()
                yield from self._pause(error, backoff, stop)
                if stop.is_set():
                    return
        self._failure = None
        if piece.purge is not None:
            # Apart: what was purged is in the records before.
            yield ChangeBatch(
                changes=loaded, seq=None, size_bytes=_size_of(loaded), least_epoch=piece.least_epoch
            )
            loaded = []
        seq = Seq.of(piece.next_offset)
        batch = ChangeBatch(
            changes=loaded,
            seq=seq,
            size_bytes=_size_of(loaded),
            caught_up=piece.at_end,
            pending=0 if piece.at_end else self.pending(seq),
            least_epoch=piece.least_epoch,
        )
        yield batch if piece.purge is None else self._add_purge(batch, piece.purge)

    def _add_purge(self, batch: ChangeBatch, purge: PurgeRecord) -> ChangeBatch:
        """Return a batch with what a record tells of purges; without, if that was known to the checkpoint.

        A pass begins with the source's purges at that time, and meets records about them. The record of
        purges that were missed may be gone, since compaction keeps the last one: a later one counts for it.
        So does one after the source went back, whatever its number: see `mark_backs`.
        """
        known, told = order_purges(self._purge_seq or ""), order_purges(purge.purge_seq)
        new = told[1] - known[1]
        if self._is_unmarked and new >= 0:
            known = told[0], known[1]  # a lower number may be news, which is never dropped
        if told <= known and not (new < 0 and purge.is_back):
            return batch
        missed = purge.missed
        if order_purges(purge.missed_at) > known:
            missed = max(missed, new, 1)
        self._purge_seq, self._is_unmarked = purge.purge_seq, False
        return replace(
            batch,
            purge_seq=purge.purge_seq,
            recreated=purge.recreated or missed > purge.missed,
            purges_missed=missed,
        )

    def _pause(self, error: RetryableError, backoff: Backoff, stop: Event) -> Iterator[ChangeBatch]:
        """Wait before the next attempt, with signs of life."""
        self._failure = str(error)
        until = self._clock.monotonic() + backoff.after(error)
        yield SIGN_OF_LIFE
        while (left := until - self._clock.monotonic()) > 0:
            if self._clock.wait(stop, min(left, TICK_SECONDS)):
                return
            yield SIGN_OF_LIFE


def to_offset(seq: Seq) -> int:
    """Return the offset of a position.

    Raises:
        InvalidSeqError: it is a position of CouchDB's feed, not of a topic.
    """
    value = seq.value
    if isinstance(value, int):
        return value
    raise InvalidSeqError(
        f"{str(seq)[:20]!r} is not a position in a topic.",
        remedy="`pillowd checkpoint reset KEY`",
    )


def _check_end(message: LibraryMessage, error: KafkaError) -> int:
    """Return the offset of the end of the partition.

    Raises:
        InvalidSeqError: the position that was asked for does not exist.
        RetryableError: the partition can't be read now.
    """
    if error.name() == "_PARTITION_EOF":
        return message.offset() or 0
    if error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
        raise InvalidSeqError(
            f"Kafka does not have the saved position: {error.str()}",
            remedy="`pillowd checkpoint reset KEY` reads the whole topic again, which is harmless except for "
            "targets that only append",
        )
    raise RetryableError(f"The partition can't be read: {error.str()}")


def _find_identity(message: LibraryMessage) -> str:
    """Return when the database of a record was created; "" if unknown."""
    headers: dict[str, Any] = dict(message.headers() or ())
    found: bytes = headers.get(IDENTITY) or b""
    return found.decode()


def _is_foreign(created_at: str, identity: DatabaseIdentity | None) -> bool:
    """Return whether a record belongs to another database than a checkpoint."""
    theirs = DatabaseIdentity(instance_start_time=created_at or None)
    return identity is not None and identity.contradicts(theirs)


def _to_change(change: Change, created_at: str, identity: DatabaseIdentity | None) -> Change:
    """Return the change that a record stands for.

    The document counts as present, so that it is read. If the record comes from an earlier database of the
    same name, only its id is used: a document that the current database lacks counts as deleted with version
    0, as after a purge.

    Raises:
        RecreatedError: the database was recreated after the checkpoint was saved.
    """
    if identity is None or not _is_foreign(created_at, identity):
        return Change(id=change.id, revs=change.revs, leaf_version=change.leaf_version)
    if _is_later(created_at, identity.instance_start_time or ""):
        raise make_recreated_error(
            "of the topic",
            f"its changes come from one created at {created_at}, and the checkpoint from one created at "
            f"{identity.instance_start_time}.",
        )
    return _to_look_at(change.id)


def _to_look_at(id: str) -> Change:
    """Return a document to look at, in any version; if it does not exist, it is deleted in version 0."""
    return Change(id=id, revs=(PURGED_REV,), leaf_version=0)


def _is_later(one: str, other: str) -> bool:
    """Return whether a database was created after another one; True if that cannot be told."""
    return not (one.isdigit() and other.isdigit()) or int(one) > int(other)


def _size_of(changes: Sequence[Change]) -> int:
    return sum(len(change.raw) if change.raw is not None else len(change.id) for change in changes)
