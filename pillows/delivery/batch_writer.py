"""What happens to a batch: written everywhere, looked at where refused, and only then acknowledged.

The order is the promise. Dead letters are stored before the batch that leaves them behind is
acknowledged, and durable before a checkpoint passes it (`Keeper`; a transactional target gets none
with the rows until they are); a refused document is looked at before; the checkpoint moves last.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import msgspec

from pillows.clock import Clock
from pillows.dead_letters.dead_letter import DeadLetter, LetterPolicy
from pillows.dead_letters.store import DeadLetters
from pillows.delivery import stale_writes
from pillows.delivery.fanout import Delivery, FanOut, diverged
from pillows.delivery.items import Item, Sorted, consecutive, sort, transformed
from pillows.delivery.stale_writes import Leaves
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity
from pillows.models import Batch, DocumentRows
from pillows.observer import Observer
from pillows.progress.checkpointer import Keeper
from pillows.progress.watermark import Advance, Watermark
from pillows.retry.retrier import Retrier
from pillows.stages.transforms import ChunkedTransform, Transform
from pillows.transports.base import newest

#: So many documents in a row, of which so many were written before, look like a rewound source. More
#: than a crash replays with the default `max_uncheckpointed` and the batches in flight.
STALE_RUN = 10_000
STALE_SHARE = 0.9


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
        turn: held while anything is touched that batches in flight share.
        transactional: the only transport saves the checkpoint with the rows.
        raise_epoch: raises the epoch by one, durably here and in every target.
        believes_equal: takes what a target has in the same version for a replay. Without that it is
            written anew, unless another target has it in a newer one.
        on_advance: called after each batch with how far the watermark moved.
        max_consecutive: so many dead letters in a row mean that the configuration is wrong.
        letter_policy: how letters are kept.
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
        turn: AbstractContextManager[object],
        transactional: bool,
        raise_epoch: Callable[[], None],
        believes_equal: bool,
        on_advance: Callable[[Advance], None],
        max_consecutive: int,
        letter_policy: LetterPolicy,
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
        self._turn = turn
        self._transactional = transactional
        self._raise_epoch = raise_epoch
        self._believes_equal = believes_equal
        self._on_advance = on_advance
        self._max_consecutive = max_consecutive
        self._letter_policy = letter_policy
        self._consecutive = 0
        self._replayed = 0
        self._raised_for: str | None = None

    def write(self, items: Sequence[Item]) -> None:
        """Writes one batch and acknowledges its changes.

        Called for several batches at once, if no document is in two of them.

        Raises:
            FatalError: the tail can't go on.
            StoppedError: a stop was asked for while a target was away; nothing is acknowledged.
        """
        began = self._clock.monotonic()
        if self._chunked is not None:
            items = transformed(self._pillow, items, self._chunked)
        work = sort(items)
        with self._turn:
            self._bury(work.failures, items)  # first: no target may save a checkpoint past them then
            batch = self._batch(work)
        deliveries = self._fanout.deliver(batch) if batch.documents else {}
        with self._turn:
            self._settle(items, work, batch, deliveries)
            self._tell(batch, deliveries, self._clock.monotonic() - began)

    def _settle(
        self, items: Sequence[Item], work: Sorted, batch: Batch, deliveries: Mapping[str, Delivery]
    ) -> None:
        """Does what is to be done before a batch is acknowledged, and acknowledges it."""
        letters = self._dead(batch, deliveries)
        self._bury(letters, items)
        self._tell_divergence(deliveries)
        if work.failures or letters or self._consecutive:
            self._count_consecutive(items, {letter.id for letter in letters})
        again = self._look_at_refused(batch, deliveries, work.documents)
        self._letters.clear(self._pillow, batch.documents, _together(deliveries, again))
        self._outrank_purged(work.purge_seq, batch.epoch)
        self._acknowledge(work)

    def _batch(self, work: Sorted) -> Batch:
        checkpoint = self._keeper.current
        documents = newest(work.documents)
        ahead = None
        if self._transactional and not work.purge_seq and self._may_pass(documents, work.documents):
            ahead = self._keeper.after(self._watermark.ahead(work.acks))
        return Batch(
            documents=documents,
            epoch=checkpoint.epoch,
            first_pass=checkpoint.first_pass and not checkpoint.pass_done,
            checkpoint=ahead,
        )

    def _may_pass(self, documents: Sequence[DocumentRows], arrived: Sequence[DocumentRows]) -> bool:
        """Whether nothing has to happen between the target's commit and the checkpoint.

        A letter has to be on disk, or cleared; a document that went back in the source is looked at.
        """
        return not (
            self._letters.unsynced(self._pillow)
            or self._letters.concern(self._pillow, documents)
            or stale_writes.goes_back(documents, arrived)
        )

    def _bury(self, letters: Sequence[DeadLetter], items: Sequence[Item]) -> None:
        if not letters:
            return
        ids = {letter.id for letter in letters}
        behind = {
            outcome.id: str(segment.seq or "")
            for segment, outcome in items
            if outcome is not None and outcome.id in ids
        }
        located = [msgspec.structs.replace(letter, seq=behind.get(letter.id, "")) for letter in letters]
        self._letters.add(located, self._letter_policy)
        for letter in letters:
            self._observer.dead_letter(
                self._pillow,
                transport=letter.transport,
                id=letter.id,
                stage=letter.stage,
                error=letter.error,
            )

    def _dead(self, batch: Batch, deliveries: Mapping[str, Delivery]) -> list[DeadLetter]:
        return [
            DeadLetter(
                pillow=self._pillow,
                transport=name,
                id=document.id,
                rev=document.rev,
                leaf_version=document.leaf_version,
                stage="transport",
                error=delivery.dead[document.id],
            )
            for name, delivery in deliveries.items()
            if delivery.dead
            for document in batch.documents
            if document.id in delivery.dead
        ]

    def _tell_divergence(self, deliveries: Mapping[str, Delivery]) -> None:
        for id, transports in diverged(deliveries).items():
            details = {"id": id, "missing_in": ", ".join(transports)}
            self._observer.warning(self._pillow, event="transports.diverged", details=details)

    def _count_consecutive(self, items: Sequence[Item], dead: Container[str]) -> None:
        self._consecutive = consecutive(self._consecutive, items, dead)
        if self._consecutive >= self._max_consecutive:
            raise FatalError(
                f"{self._consecutive} documents in a row could not be written: it is the configuration "
                "that does not fit, not the documents.",
                remedy=f"see `pillowd dead-letter list {self._pillow}`, mend transform or mapping, restart",
            )

    def _look_at_refused(
        self, batch: Batch, deliveries: Mapping[str, Delivery], arrived: Sequence[DocumentRows]
    ) -> Mapping[str, Delivery]:
        """Writes again what has gone back in the source; what became of that."""
        refused = [d.refused for d in deliveries.values() if d.refused]
        if not refused and len(arrived) == len(batch.documents):
            return {}
        last = {d.id: d for d in arrived}
        suspected = stale_writes.suspects(batch, refused, last)
        gone_back = self._gone_back(suspected)
        equal = stale_writes.equal(batch, refused)
        # By a batch beside this one: what is equal under the old epoch may be what was purged, then.
        raised = self._keeper.current.epoch > batch.epoch
        if equal and (raised or self._was_purged()):
            gone_back |= equal
        elif not self._believes_equal:
            gone_back |= {id: version for id, version in equal.items() if id not in suspected}
        if not gone_back:
            return {}
        self._observer.rewind(self._pillow, reason=f"{len(gone_back)} documents went back in the source")
        if not raised:
            self._raise_epoch()
        again = replace(
            batch,
            documents=stale_writes.rewritten(last, gone_back),
            epoch=self._keeper.current.epoch,
            checkpoint=None,
        )
        rewritten = self._fanout.deliver(again)
        self._bury(self._dead(again, rewritten), ())
        return rewritten

    def _gone_back(self, suspected: Mapping[str, int]) -> dict[str, int]:
        look = self._retrier.asks("source")
        return look.until_done(lambda: stale_writes.went_back(suspected, self._source, self._retrier.waiter))

    def _was_purged(self) -> bool:
        """Whether the source was purged since the epoch was raised for that.

        The checkpoint notes the purge only when the feed has told what was purged: see `_outrank_purged`.
        """
        found = self._retrier.asks("source").until_done(self._source.identify)
        if not found.purged_since(self._raised_for or self._keeper.current.purge_seq):
            return False
        self._raised_for = found.purge_seq
        return True

    def _outrank_purged(self, purge_seq: str | None, epoch: int) -> None:
        """Raises the epoch once what was purged is gone: what is created anew may have its version."""
        if DatabaseIdentity(purge_seq=purge_seq).purged_since(self._keeper.current.purge_seq):
            self._raised_for = purge_seq
            if self._keeper.current.epoch == epoch:
                self._raise_epoch()

    def _acknowledge(self, work: Sorted) -> None:
        advance = self._watermark.ack(work.acks)
        self._keeper.move(advance)
        self._on_advance(advance)

    def _tell(self, batch: Batch, deliveries: Mapping[str, Delivery], seconds: float) -> None:
        refused = {id for delivery in deliveries.values() for id in delivery.refused}
        self._suspect_rewind(len(batch.documents), len(refused))
        self._observer.batch(
            self._pillow,
            documents=len(batch.documents),
            refused=sum(len(d.refused) for d in deliveries.values()),
            dead=sum(len(d.dead) for d in deliveries.values()),
            seconds=seconds,
        )

    def _suspect_rewind(self, documents: int, refused: int) -> None:
        """Tells, once a run, that nearly everything that comes was written before.

        CouchDB rewinds in silence (a lost shard, a restored node; apache/couchdb#3885). The replay is
        harmless, but an operator who sees lag grow wants to know why.
        """
        if refused < STALE_SHARE * documents:
            self._replayed = 0
            return
        before, self._replayed = self._replayed, self._replayed + refused
        if before < STALE_RUN <= self._replayed:
            self._observer.rewind(
                self._pillow, reason=f"{self._replayed} documents in a row were written before"
            )


def _together(first: Mapping[str, Delivery], again: Mapping[str, Delivery]) -> Mapping[str, Delivery]:
    """What became of documents, some of which were written twice; dead is who died either time."""
    return {
        name: replace(each, dead={**each.dead, **again[name].dead}) if name in again else each
        for name, each in first.items()
    }
