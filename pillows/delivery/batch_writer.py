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

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.dead_letters.dead_letter import DeadLetter, DeadLetterPolicy
from pillows.dead_letters.store import DeadLetters
from pillows.delivery import stale_writes
from pillows.delivery.fanout import FanOut, TransportResult, find_divergence
from pillows.delivery.items import (
    Item,
    PartitionedItems,
    count_consecutive_failures,
    partition_items,
    transform_chunks,
)
from pillows.delivery.stale_writes import SourceLookup
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity
from pillows.models import Batch, DocumentRows
from pillows.observer import Observer
from pillows.progress.checkpointer import Checkpointer
from pillows.progress.watermark import Watermark, WatermarkMove
from pillows.retry.retrier import Retrier
from pillows.stages.transforms import ChunkedTransform, Transform
from pillows.transports.base import newest

#: So many documents in a row, of which so many were written before, look like a rewound source. More
#: than a crash replays with the default `max_uncheckpointed` and the batches in flight.
STALE_RUN = 10_000
STALE_SHARE = 0.9


class BatchWriter:
    """Writes the batches of one tail.

    Args:
        tail: the tail's key.
        fanout: delivers to the transports.
        source: is asked about refused documents.
        dead_letters: takes what can never be written.
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
        letter_policy: how dead letters are kept.
    """

    def __init__(
        self,
        tail: TailKey,
        *,
        fanout: FanOut,
        source: SourceLookup,
        dead_letters: DeadLetters,
        transform: Transform,
        watermark: Watermark,
        keeper: Checkpointer,
        retrier: Retrier,
        observer: Observer,
        clock: Clock,
        turn: AbstractContextManager[object],
        transactional: bool,
        raise_epoch: Callable[[], None],
        believes_equal: bool,
        on_advance: Callable[[WatermarkMove], None],
        max_consecutive: int,
        dead_letter_policy: DeadLetterPolicy,
    ) -> None:
        self._tail = tail
        self._fanout = fanout
        self._source = source
        self._dead_letters = dead_letters
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
        self._dead_letter_policy = dead_letter_policy
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
            items = transform_chunks(self._tail, items, self._chunked)
        work = partition_items(items)
        with self._turn:
            self._bury(work.failures, items)  # first: no target may save a checkpoint past them then
            batch = self._batch(work)
        results = self._fanout.deliver(batch) if batch.documents else {}
        with self._turn:
            self._settle(items, work, batch, results)
            self._tell(batch, results, self._clock.monotonic() - began)

    def _settle(
        self,
        items: Sequence[Item],
        work: PartitionedItems,
        batch: Batch,
        results: Mapping[str, TransportResult],
    ) -> None:
        """Does what is to be done before a batch is acknowledged, and acknowledges it."""
        dead_letters = self._dead(batch, results)
        self._bury(dead_letters, items)
        self._tell_divergence(results)
        if work.failures or dead_letters or self._consecutive:
            self._count_consecutive(items, {dead_letter.id for dead_letter in dead_letters})
        again = self._look_at_refused(batch, results, work.documents)
        self._dead_letters.clear(self._tail, batch.documents, _together(results, again))
        self._outrank_purged(work.purge_seq, batch.epoch)
        self._acknowledge(work)

    def _batch(self, work: PartitionedItems) -> Batch:
        checkpoint = self._keeper.current
        documents = newest(work.documents)
        peek = None
        if self._transactional and not work.purge_seq and self._may_pass(documents, work.documents):
            peek = self._keeper.after(self._watermark.peek(work.acks))
        return Batch(
            documents=documents,
            epoch=checkpoint.epoch,
            first_pass=checkpoint.first_pass and not checkpoint.pass_done,
            checkpoint=peek,
        )

    def _may_pass(self, documents: Sequence[DocumentRows], arrived: Sequence[DocumentRows]) -> bool:
        """Whether nothing has to happen between the target's commit and the checkpoint.

        A dead letter has to be on disk, or cleared; a document that went back in the source is looked at.
        """
        return not (
            self._dead_letters.unsynced(self._tail)
            or self._dead_letters.affects(self._tail, documents)
            or stale_writes.has_regression(documents, arrived)
        )

    def _bury(self, dead_letters: Sequence[DeadLetter], items: Sequence[Item]) -> None:
        if not dead_letters:
            return
        ids = {dead_letter.id for dead_letter in dead_letters}
        behind = {
            outcome.id: str(segment.seq or "")
            for segment, outcome in items
            if outcome is not None and outcome.id in ids
        }
        located = [
            msgspec.structs.replace(dead_letter, seq=behind.get(dead_letter.id, ""))
            for dead_letter in dead_letters
        ]
        self._dead_letters.add(located, self._dead_letter_policy)
        for dead_letter in dead_letters:
            self._observer.dead_letter(
                self._tail,
                transport=dead_letter.transport,
                id=dead_letter.id,
                stage=dead_letter.stage,
                error=dead_letter.error,
            )

    def _dead(self, batch: Batch, results: Mapping[str, TransportResult]) -> list[DeadLetter]:
        return [
            DeadLetter(
                tail=self._tail,
                transport=name,
                id=document.id,
                rev=document.rev,
                leaf_version=document.leaf_version,
                stage="transport",
                error=delivery.dead[document.id],
            )
            for name, delivery in results.items()
            if delivery.dead
            for document in batch.documents
            if document.id in delivery.dead
        ]

    def _tell_divergence(self, results: Mapping[str, TransportResult]) -> None:
        for id, transports in find_divergence(results).items():
            details = {"id": id, "missing_in": ", ".join(transports)}
            self._observer.warning(self._tail, event="transports.diverged", details=details)

    def _count_consecutive(self, items: Sequence[Item], dead: Container[str]) -> None:
        self._consecutive = count_consecutive_failures(self._consecutive, items, dead)
        if self._consecutive >= self._max_consecutive:
            raise FatalError(
                f"{self._consecutive} documents in a row could not be written: it is the configuration "
                "that does not fit, not the documents.",
                remedy=f"see `pillowd dead-letter list {self._tail}`, mend transform or mapping, restart",
            )

    def _look_at_refused(
        self, batch: Batch, results: Mapping[str, TransportResult], arrived: Sequence[DocumentRows]
    ) -> Mapping[str, TransportResult]:
        """Writes again what has gone back in the source; what became of that."""
        refused = [d.refused for d in results.values() if d.refused]
        if not refused and len(arrived) == len(batch.documents):
            return {}
        last = {d.id: d for d in arrived}
        suspected = stale_writes.find_newer_in_target(batch, refused, last)
        gone_back = self._gone_back(suspected)
        find_equal = stale_writes.find_equal(batch, refused)
        # By a batch beside this one: what is equal under the old epoch may be what was purged, then.
        raised = self._keeper.current.epoch > batch.epoch
        if find_equal and (raised or self._was_purged()):
            gone_back |= find_equal
        elif not self._believes_equal:
            gone_back |= {id: version for id, version in find_equal.items() if id not in suspected}
        if not gone_back:
            return {}
        self._observer.rewind(self._tail, reason=f"{len(gone_back)} documents went back in the source")
        if not raised:
            self._raise_epoch()
        again = replace(
            batch,
            documents=stale_writes.rows_to_rewrite(last, gone_back),
            epoch=self._keeper.current.epoch,
            checkpoint=None,
        )
        rows_to_rewrite = self._fanout.deliver(again)
        self._bury(self._dead(again, rows_to_rewrite), ())
        return rows_to_rewrite

    def _gone_back(self, suspected: Mapping[str, int]) -> dict[str, int]:
        look = self._retrier.asks("source")
        return look.until_done(
            lambda: stale_writes.confirm_regressed(suspected, self._source, self._retrier.waiter)
        )

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

    def _acknowledge(self, work: PartitionedItems) -> None:
        advance = self._watermark.ack(work.acks)
        self._keeper.move(advance)
        self._on_advance(advance)

    def _tell(self, batch: Batch, results: Mapping[str, TransportResult], seconds: float) -> None:
        refused = {id for delivery in results.values() for id in delivery.refused}
        self._suspect_rewind(len(batch.documents), len(refused))
        self._observer.batch(
            self._tail,
            documents=len(batch.documents),
            refused=sum(len(d.refused) for d in results.values()),
            dead=sum(len(d.dead) for d in results.values()),
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
                self._tail, reason=f"{self._replayed} documents in a row were written before"
            )


def _together(
    first: Mapping[str, TransportResult], again: Mapping[str, TransportResult]
) -> Mapping[str, TransportResult]:
    """What became of documents, some of which were written twice; dead is who died either time."""
    return {
        name: replace(each, dead={**each.dead, **again[name].dead}) if name in again else each
        for name, each in first.items()
    }
