"""The pipeline of one tail: the loop at the centre of the project.

for change in feed.changes(since=checkpoint.seq):      # CouchDB _changes
    if filter(change):                                  # keep it? (else: it leaves the set)
        document = trigger(change)                      # extract: the document, or that it is gone
        rows = transform(document)                      # its complete rows, per output
        transport(rows)                                 # load: batches, written behind the reader
    checkpoint.advance(change.seq)                      # only once every transport acknowledged
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple, NoReturn, Protocol

import gevent
from msgspec import Struct

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.dead_letters.dead_letter import make_dead_letter
from pillows.delivery.items import Item, Outcome
from pillows.errors import FatalError, PermanentError, StoppedError
from pillows.models import MAX_LEAF_VERSION, Change, ChangeBatch, Document, DocumentRows, Row, too_high
from pillows.observer import Observer
from pillows.progress.watermark import PendingRange, Watermark
from pillows.stages.filters import Filter, KeepAll
from pillows.stages.transforms import ChunkedTransform, PassThrough, Transform
from pillows.stages.triggers import (
    AttachmentTrigger,
    DocumentTrigger,
    PythonTrigger,
    ReadAttachment,
    Trigger,
)
from pillows.user_code import confine

#: One change in this many is timed, always including the first of a batch: reading the clock twice for each
#: stage of each document would cost more than the rest of a pass-through pillow.
TIMED_EVERY = 16

#: The loop gives way to other greenlets after so much computing; a turn of the hub should never
#: take 50 ms.
TURN_SECONDS = 0.01

#: A single document that computes for longer is named in a warning: no timeout can stop it.
SLOW_SECONDS = 0.25


class Pillow(Struct, frozen=True, kw_only=True):
    """A configured pipeline.

    Attributes:
        name: its name, as logs show it.
        outputs: the outputs that its documents have rows in; the first is the default.
        filter: which documents belong to the set.
        transform: what rows a document has.
        keep_departed: documents that leave the set keep their rows (append-only sources).
        keep_deleted: deleted documents keep their rows (append-only sources).
        max_attachment_bytes: attachments up to this size come with their documents; 0: stubs only.
        extract: a trigger function of the user's; see `PythonTrigger`.
    """

    name: str
    outputs: Sequence[str]
    filter: Filter
    transform: Transform
    keep_departed: bool = False
    keep_deleted: bool = False
    max_attachment_bytes: int = 0
    extract: Callable[[Change, Callable[[], Any]], Any] | None = None

    @property
    def needs_document(self) -> bool:
        """Whether a document must be read to know which outputs it has rows in."""
        is_whole = isinstance(self.transform, PassThrough) and self.extract is None
        return self.filter.needs_document or not is_whole

    def trigger(self, fetch: Callable[[Change], Document], read: ReadAttachment) -> Trigger:
        """Return the trigger, which extracts this pillow's documents.

        Args:
            fetch: reads a document that did not come with its change.
            read: reads an attachment.
        """
        trigger = DocumentTrigger(fetch)
        if self.max_attachment_bytes:
            trigger = AttachmentTrigger(fetch, read, max_bytes=self.max_attachment_bytes)
        return trigger if self.extract is None else PythonTrigger(self.extract, trigger)


class Stages(NamedTuple):
    """The calls that a change goes through.

    Attributes:
        load: gets the document for a filter that reads it, if it did not come with the change; None: no
            filter does.
        filter: None keeps every document.
    """

    load: Callable[[Change], Change] | None
    filter: Callable[[Change], bool] | None
    trigger: Callable[[Change], Document]
    transform: Callable[[Document], Mapping[str, Sequence[Row]]]


class ItemPusher(Protocol):
    """Takes the outcome of each change."""

    @property
    def push(self) -> Callable[[Item, int], bool]:
        """Hand over an item with its size in bytes; may wait. Returns whether it waited."""

    @property
    def expect(self) -> Callable[..., None]:
        """Tell whether `more` items follow at once."""


class Pipeline:
    """Carries the changes of one tail from the feed to the pusher.

    Args:
        pillow: the pipeline's parts.
        trigger: extracts documents.
        pusher: receives the outcome of each change.
        watermark: notes the changes that have arrived.
        observer: receives the events of the pillow.
        tail: the tail's key.
        clock: for the arrival times of changes.
        with_text: as `ErrorOptions.exception_text`.
    """

    def __init__(
        self,
        pillow: Pillow,
        *,
        trigger: Trigger,
        pusher: ItemPusher,
        watermark: Watermark,
        observer: Observer,
        tail: TailKey,
        clock: Clock,
        with_text: bool = False,
    ) -> None:
        self.pusher = pusher
        self.watermark = watermark
        self._pillow = pillow
        self._observer = observer
        self._tail = tail
        self._clock = clock
        self._with_text = with_text
        self._filtered = 0
        self._chunked = isinstance(pillow.transform, ChunkedTransform)
        filter = None if isinstance(pillow.filter, KeepAll) else pillow.filter
        load = trigger.load if filter is not None and filter.needs_document else None
        self._stages = Stages(load, filter, trigger, pillow.transform)
        self._seconds: dict[str, float] = {}
        self._timed_stages = Stages(
            load=load and self._time("trigger", load),
            filter=filter and self._time("filter", filter),
            trigger=self._time("trigger", trigger),
            transform=self._time("transform", pillow.transform),
        )

    def carry(self, batches: Iterable[ChangeBatch], on_batch: Callable[[ChangeBatch], None]) -> None:
        """Carry changes until the feed ends.

        Args:
            batches: the feed's batches.
            on_batch: called with each batch before it is carried; a sign of life.

        Raises:
            FatalError: the tail can't continue.
            StoppedError: a stop was requested while something was retried.
        """
        for batch in batches:
            on_batch(batch)
            pending_range = self.begin(batch)
            if pending_range is None:
                continue
            if not batch.changes:
                self.pusher.push((pending_range, None), 0)
            self._carry_changes(batch.changes, pending_range)

    def begin(self, batch: ChangeBatch) -> PendingRange | None:
        """Note that a batch has arrived; return the range of its changes.

        Returns:
            None for a batch that is a sign of life and nothing more.
        """
        self.pusher.expect(more=batch.more_follow)
        if batch.is_sign_of_life:
            return None
        pending_range = self.watermark.begin(batch, self._clock.monotonic())
        for each in self._observer.data_observers:
            each.arrived(self._tail, changes=batch.changes)
        return pending_range

    def _carry_changes(self, changes: Sequence[Change], pending_range: PendingRange) -> None:
        turn_began = perf_counter()
        push = self.pusher.push
        kept = self._filtered = 0
        for number, change in enumerate(changes):
            stages = self._stages if number % TIMED_EVERY else self._timed_stages
            outcome = self.outcome(change, stages)
            kept += type(outcome) is Document or (type(outcome) is DocumentRows and bool(outcome.rows))
            turn_seconds = perf_counter() - turn_began
            waited = push((pending_range, outcome), estimate_size_bytes(change, outcome))
            if turn_seconds > SLOW_SECONDS:
                self._warn_slow(change, turn_seconds)
            if turn_seconds > TURN_SECONDS:
                gevent.sleep(0)
            if waited or turn_seconds > TURN_SECONDS:
                turn_began = perf_counter()
        self._observer.change(self._tail, count=len(changes), kept=kept, filtered=self._filtered)
        self._report_stages(len(changes))

    def outcome(self, change: Change, stages: Stages | None = None) -> Outcome:
        """Return the outcome of one change: rows, None if there is nothing to do, or a dead letter.

        For a transform that takes chunks the outcome is the document itself: the writer calls the transform.

        Args:
            change: the change.
            stages: the stages to apply; the pillow's unless given.

        Raises:
            FatalError: the tail can't continue.
            StoppedError: a stop was requested.
        """
        pillow, stages, stage = self._pillow, stages or self._stages, "filter"
        try:
            if change.defect or change.leaf_version > MAX_LEAF_VERSION:
                _reject(change.leaf_version, change.defect)
            if stages.load is not None and change.raw is None and not change.deleted:
                stage = "trigger"
                change = stages.load(change)
                if change.leaf_version > MAX_LEAF_VERSION:  # it may be newer
                    _reject(change.leaf_version)
                stage = "filter"
            if change.deleted:
                return None if pillow.keep_deleted else without_rows(change)
            if stages.filter is not None and not stages.filter(change):
                self._filtered += 1
                return None if pillow.keep_departed else without_rows(change)
            stage = "trigger"
            document = stages.trigger(change)
            if document.leaf_version > MAX_LEAF_VERSION:  # it may be newer
                _reject(document.leaf_version)
            if document.deleted:  # after the feed reported the change
                return None if pillow.keep_deleted else without_rows(document)
            if self._chunked:
                return document
            stage = "transform"
            return DocumentRows(
                id=change.id,
                rev=document.rev,
                leaf_version=document.leaf_version,
                rows=stages.transform(document),
                size_bytes=len(document.raw) if document.raw is not None else 0,
            )
        except (FatalError, StoppedError):
            raise
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything; it becomes a dead letter
            return make_dead_letter(self._tail, change, stage, confine(error), with_text=self._with_text)

    def _time(self, stage: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def timed(value: Any) -> Any:
            began = perf_counter()
            try:
                return call(value)
            finally:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + perf_counter() - began

        return timed

    def _report_stages(self, count: int) -> None:
        """Report the seconds of a batch, estimated from its timed changes."""
        scale = count / -(-count // TIMED_EVERY) if count else 1.0
        for stage, seconds in self._seconds.items():
            self._observer.stage(self._tail, stage=stage, seconds=seconds * scale)
        self._seconds = {}

    def _warn_slow(self, change: Change, seconds: float) -> None:
        self._observer.warning(
            self._tail, event="transform.slow", details={"id": change.id, "seconds": round(seconds, 3)}
        )


def without_rows(change: Change | Document) -> DocumentRows:
    """Return the document without rows, because it was deleted or has left the set."""
    return DocumentRows(id=change.id, rev=change.rev, leaf_version=change.leaf_version, rows={})


def _reject(leaf_version: int, defect: str = "") -> NoReturn:
    """Raise PermanentError for a change that can never be read or written."""
    raise PermanentError(defect) if defect else too_high(leaf_version)


def estimate_size_bytes(change: Change, outcome: Outcome) -> int:
    """Return the approximate memory of a change and its outcome, in bytes."""
    size_bytes = len(change.raw) if change.raw is not None else len(change.id)
    if type(outcome) is DocumentRows:
        return max(size_bytes, outcome.size_bytes)  # fetched apart, or with attachments
    if type(outcome) is Document and outcome.raw is not None:
        return len(outcome.raw)
    return size_bytes
