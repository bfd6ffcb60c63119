"""What happens to a batch: written everywhere, looked at where refused, and only then acknowledged.

The order is the promise. Dead letters are durable before the batch that leaves them behind is
acknowledged; a refused document is looked at before; the checkpoint moves last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pillows import refusals
from pillows.clock import Clock
from pillows.deadletters import DeadLetter, DeadLetters, letter_of
from pillows.errors import FatalError
from pillows.fanout import Delivery, FanOut
from pillows.keeper import Keeper
from pillows.models import Batch, Document, DocumentRows, Row
from pillows.observer import Observer
from pillows.refusals import Leaves
from pillows.transforms import ChunkedTransform, Transform
from pillows.transports.base import newest
from pillows.tries import Retrier
from pillows.watermark import Advance, Segment, Watermark

#: What the pipeline pushes for one change: its rows, the document where rows are made in chunks, a
#: failure, or nothing to write.
Outcome = DocumentRows | Document | DeadLetter | None

#: A pushed change: the segment that waits for its acknowledgement, and what became of it.
Item = tuple[Segment, Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """The items of a batch, by what must be done with them."""

    acks: Mapping[Segment, int]
    documents: Sequence[DocumentRows]
    failures: Sequence[DeadLetter]


class Writer:
    """Writes the batches of one tail.

    Args:
        pillow: the tail's key as text.
        fanout: delivers to the transports.
        source: is asked about refused documents.
        letters: takes what can never be written.
        transform: the pillow's; one that takes chunks is asked here.
        watermark: is told what was acknowledged.
        keeper: keeps the checkpoint.
        transactional: the only transport saves the checkpoint with the rows.
        raise_epoch: raises the epoch by one, durably here and in every target.
        on_advance: called after each batch with how far the watermark moved.
        max_consecutive: so many dead letters in a row mean that the configuration is wrong.
    """

    def __init__(
        self,
        pillow: str,
        *,
        fanout: FanOut,
        source: Leaves,
        letters: DeadLetters,
        transform: Transform,
        watermark: Watermark,
        keeper: Keeper,
        retrier: Retrier,
        observer: Observer,
        clock: Clock,
        transactional: bool,
        raise_epoch: Callable[[], None],
        on_advance: Callable[[Advance], None],
        max_consecutive: int,
    ) -> None:
        self._pillow = pillow
        self._fanout = fanout
        self._source = source
        self._letters = letters
        self._chunked = transform if isinstance(transform, ChunkedTransform) else None
        self._watermark = watermark
        self._keeper = keeper
        self._retrier = retrier
        self._observer = observer
        self._clock = clock
        self._transactional = transactional
        self._raise_epoch = raise_epoch
        self._on_advance = on_advance
        self._max_consecutive = max_consecutive
        self._consecutive = 0

    def write(self, items: Sequence[Item]) -> None:
        """Writes one batch and acknowledges its changes.

        Raises:
            FatalError: the tail can't go on.
            StoppedError: a stop was asked for while a target was away; nothing is acknowledged.
        """
        began = self._clock.monotonic()
        work = sort(items if self._chunked is None else transformed(self._pillow, items, self._chunked))
        self._bury(work.failures)
        batch = self._batch(work)
        deliveries = self._fanout.deliver(batch) if batch.documents else {}
        self._bury(self._dead(batch, deliveries))
        self._letters.clear(self._pillow, batch.documents, deliveries)
        self._look_at_refused(batch, deliveries)
        self._acknowledge(work)
        self._tell(batch, deliveries, self._clock.monotonic() - began)

    def _batch(self, work: Sorted) -> Batch:
        checkpoint = self._keeper.current
        ahead = self._keeper.after(self._watermark.ahead(work.acks)) if self._transactional else None
        return Batch(
            documents=newest(work.documents),
            epoch=checkpoint.epoch,
            first_pass=checkpoint.first_pass and not checkpoint.pass_done,
            checkpoint=ahead,
        )

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        self._letters.add(letters)
        for letter in letters:
            self._observer.dead_letter(
                self._pillow,
                transport=letter.transport,
                id=letter.id,
                stage=letter.stage,
                error=letter.error,
            )

    def _dead(self, batch: Batch, deliveries: Mapping[str, Delivery]) -> list[DeadLetter]:
        letters = [
            DeadLetter(
                pillow=self._pillow,
                transport=name,
                id=document.id,
                rev=document.rev,
                version=document.version,
                stage="transport",
                error=delivery.dead[document.id],
            )
            for name, delivery in deliveries.items()
            if delivery.dead
            for document in batch.documents
            if document.id in delivery.dead
        ]
        self._count_consecutive(batch, {letter.id for letter in letters})
        return letters

    def _count_consecutive(self, batch: Batch, dead: set[str]) -> None:
        for document in batch.documents if dead else ():
            self._consecutive = self._consecutive + 1 if document.id in dead else 0
        if not dead and batch.documents:
            self._consecutive = 0
        if self._consecutive >= self._max_consecutive:
            raise FatalError(
                f"{self._consecutive} documents in a row could not be written: it is the configuration "
                "that does not fit, not the documents.",
                remedy=f"see `pillowd dead-letter list {self._pillow}`, mend transform or mapping, restart",
            )

    def _look_at_refused(self, batch: Batch, deliveries: Mapping[str, Delivery]) -> None:
        suspected = refusals.suspects(batch, [d.refused for d in deliveries.values() if d.refused])
        if not suspected:
            return
        look = self._retrier.tries("source")
        gone_back = look.until_done(lambda: refusals.went_back(suspected, self._source, self._retrier.waiter))
        if not gone_back:
            return
        self._observer.rewind(self._pillow, reason=f"{len(gone_back)} documents went back in the source")
        self._raise_epoch()
        again = refusals.rewritten(batch, gone_back, self._keeper.current.epoch)
        self._bury(self._dead(again, self._fanout.deliver(again)))

    def _acknowledge(self, work: Sorted) -> None:
        advance = self._watermark.ack(work.acks)
        self._keeper.move(advance)
        self._on_advance(advance)

    def _tell(self, batch: Batch, deliveries: Mapping[str, Delivery], seconds: float) -> None:
        self._observer.batch(
            self._pillow,
            documents=len(batch.documents),
            refused=sum(len(d.refused) for d in deliveries.values()),
            dead=sum(len(d.dead) for d in deliveries.values()),
            seconds=seconds,
        )


def sort(items: Sequence[Item]) -> Sorted:
    """Sorts the items of a batch by what must be done with them."""
    return Sorted(
        acks=Counter(segment for segment, _ in items),
        documents=[outcome for _, outcome in items if type(outcome) is DocumentRows],
        failures=[outcome for _, outcome in items if type(outcome) is DeadLetter],
    )


def transformed(pillow: str, items: Sequence[Item], transform: ChunkedTransform) -> list[Item]:
    """The same items, with the rows of those documents that have none yet.

    Args:
        pillow: the tail's key as text.
        items: a batch.
        transform: makes the rows.
    """
    documents = [outcome for _, outcome in items if type(outcome) is Document]
    made = iter(zip(documents, transform.many(documents), strict=True))
    return [
        (segment, _rows_of(pillow, *next(made)) if type(outcome) is Document else outcome)
        for segment, outcome in items
    ]


def _rows_of(pillow: str, document: Document, rows: Mapping[str, Sequence[Row]] | Exception) -> Outcome:
    if isinstance(rows, Exception):
        return letter_of(pillow, document, "transform", rows)
    size_bytes = len(document.raw) if document.raw is not None else 0
    return DocumentRows(
        id=document.id, rev=document.rev, version=document.version, rows=rows, size_bytes=size_bytes
    )
