"""One pipeline, and the loop that the whole project is about.

for change in feed.changes(since=checkpoint.seq):      # CouchDB _changes
    if filter(change):                                  # keep it? (else: it leaves the set)
        document = trigger(change)                      # extract: the document, or that it is gone
        rows = transform(document)                      # its complete rows, per output
        transport(rows)                                 # load: batches, written behind the reader
    checkpoint.advance(change.seq)                      # only once every transport acknowledged
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import gevent

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.dead_letters.dead_letter import make_dead_letter
from pillows.delivery.items import Item, Outcome
from pillows.delivery.partitioned_pusher import PartitionedPusher
from pillows.delivery.pusher import Pusher
from pillows.errors import FatalError, PermanentError, StoppedError
from pillows.models import Change, ChangeBatch, Document, DocumentRows
from pillows.observer import Observer
from pillows.progress.watermark import PendingRange, Watermark
from pillows.stages.filters import Filter
from pillows.stages.transforms import ChunkedTransform, Transform
from pillows.stages.triggers import AttachmentTrigger, DocumentTrigger, ReadAttachment

#: The loop gives way to other greenlets after so much computing; a turn of the hub should never
#: take 50 ms.
TURN_SECONDS = 0.01

#: A single document that computes for longer is named in a warning: no timeout can stop it.
SLOW_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Pillow:
    """A configured pipeline.

    Attributes:
        name: its name, as logs show it.
        outputs: the outputs that its documents have rows in; the first is the default.
        filter: which documents belong to the set.
        transform: what rows a document has.
        keep_departed: documents that leave the set keep their rows (append-only sources).
        keep_deleted: deleted documents keep their rows (append-only sources).
        max_attachment_bytes: attachments up to this size come with their documents; 0: stubs only.
    """

    name: str
    outputs: Sequence[str]
    filter: Filter
    transform: Transform
    keep_departed: bool = False
    keep_deleted: bool = False
    max_attachment_bytes: int = 0

    def trigger(self, fetch: Callable[[Change], Document], read: ReadAttachment) -> DocumentTrigger:
        """Return what extracts documents for this pillow.

        Args:
            fetch: reads a document that did not come with its change.
            read: reads an attachment.
        """
        if not self.max_attachment_bytes:
            return DocumentTrigger(fetch)
        return AttachmentTrigger(fetch, read, max_bytes=self.max_attachment_bytes)


class Pipeline:
    """Carries the changes of one tail from the feed to the pusher.

    Args:
        pillow: the pipeline's parts.
        trigger: extracts documents.
        pusher: takes what becomes of each change.
        watermark: takes what has arrived.
        observer: receives what was done.
        tail: the tail's key.
        clock: tells when changes arrive.
    """

    def __init__(
        self,
        pillow: Pillow,
        *,
        trigger: DocumentTrigger,
        pusher: Pusher[Item] | PartitionedPusher[Item],
        watermark: Watermark,
        observer: Observer,
        tail: TailKey,
        clock: Clock,
    ) -> None:
        self.filter = pillow.filter
        self.trigger = trigger
        self.transform = pillow.transform
        self.pusher = pusher
        self.watermark = watermark
        self._pillow = pillow
        self._observer = observer
        self._tail = tail
        self._clock = clock
        self._stage = ""
        self._filter_seconds = self._fetch_seconds = self._transform_seconds = 0.0
        self._chunked = isinstance(pillow.transform, ChunkedTransform)

    def carry(self, batches: Iterable[ChangeBatch], on_batch: Callable[[ChangeBatch], None]) -> None:
        """Carry changes until the feed ends.

        Args:
            batches: the feed's batches.
            on_batch: called with each batch before it is carried; a sign of life.

        Raises:
            FatalError: the tail can't go on.
            StoppedError: a stop was requested while something was retried.
        """
        for batch in batches:
            on_batch(batch)
            if not batch.changes and batch.seq is None and batch.purge_seq is None:
                continue  # a sign of life, nothing more
            pending_range = self.watermark.begin(batch, self._clock.monotonic())
            if not batch.changes:
                self.pusher.push((pending_range, None), 0)
            self._carry_changes(batch.changes, pending_range)

    def _carry_changes(self, changes: Sequence[Change], pending_range: PendingRange) -> None:
        turn_began = perf_counter()
        kept = 0
        for change in changes:
            outcome = self.outcome_or_dead_letter(change)
            kept += type(outcome) is Document or (type(outcome) is DocumentRows and bool(outcome.rows))
            turn_seconds = perf_counter() - turn_began
            waited = self.pusher.push((pending_range, outcome), estimate_size_bytes(change, outcome))
            if turn_seconds > SLOW_SECONDS:
                self._warn_slow(change, turn_seconds)
            if turn_seconds > TURN_SECONDS:
                gevent.sleep(0)
            if waited or turn_seconds > TURN_SECONDS:
                turn_began = perf_counter()
        self._observer.change(self._tail, count=len(changes), kept=kept)
        self._report_stages()

    def outcome_or_dead_letter(self, change: Change) -> Outcome:
        """Return the outcome of one change; if that fails, the dead letter that says why.

        Raises:
            FatalError: the tail can't go on.
            StoppedError: a stop was requested.
        """
        try:
            return self.outcome(change)
        except (FatalError, StoppedError):
            raise
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything; it becomes a dead letter
            return make_dead_letter(self._tail, change, self._stage, error)

    def outcome(self, change: Change) -> Outcome:
        """Return the outcome of one change: the document's rows, or None if there is nothing to do.

        For a transform that takes chunks it is the document itself: the writer calls that.
        """
        self._stage = "filter"
        if change.defect:
            raise PermanentError(change.defect)
        if change.deleted:
            return None if self._pillow.keep_deleted else without_rows(change)
        began = perf_counter()
        kept = self.filter(change)
        filtered = perf_counter()
        self._filter_seconds += filtered - began
        if not kept:
            return None if self._pillow.keep_departed else without_rows(change)
        self._stage = "trigger"
        document = self.trigger(change)
        fetched = perf_counter()
        self._fetch_seconds += fetched - filtered
        if document.deleted:  # since the feed told of it
            return None if self._pillow.keep_deleted else without_rows(document)
        if self._chunked:
            return document
        self._stage = "transform"
        rows = self.transform(document)
        self._transform_seconds += perf_counter() - fetched
        return DocumentRows(
            id=change.id,
            rev=document.rev,
            leaf_version=document.leaf_version,
            rows=rows,
            size_bytes=len(document.raw) if document.raw is not None else 0,
        )

    def _report_stages(self) -> None:
        self._observer.stage(self._tail, stage="filter", seconds=self._filter_seconds)
        self._observer.stage(self._tail, stage="fetch", seconds=self._fetch_seconds)
        if not self._chunked:
            self._observer.stage(self._tail, stage="transform", seconds=self._transform_seconds)
        self._filter_seconds = self._fetch_seconds = self._transform_seconds = 0.0

    def _warn_slow(self, change: Change, seconds: float) -> None:
        self._observer.warning(
            self._tail, event="transform.slow", details={"id": change.id, "seconds": round(seconds, 3)}
        )


def without_rows(change: Change | Document) -> DocumentRows:
    """Return a document without rows: it was deleted, or has left the set."""
    return DocumentRows(id=change.id, rev=change.rev, leaf_version=change.leaf_version, rows={})


def estimate_size_bytes(change: Change, outcome: Outcome) -> int:
    """Return roughly the bytes that a change and its outcome hold in memory."""
    size_bytes = len(change.raw) if change.raw is not None else len(change.id)
    if type(outcome) is DocumentRows:
        return max(size_bytes, outcome.size_bytes)  # fetched apart, or with attachments
    if type(outcome) is Document and outcome.raw is not None:
        return len(outcome.raw)
    return size_bytes
