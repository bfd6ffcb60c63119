"""Deliver one batch: write it to every transport, re-check refused documents, then acknowledge it.

The order guarantees that nothing is lost. First, refused documents are re-checked and dead letters are
stored. Then the batch is acknowledged. The checkpoint moves last, and only after the dead letters are on disk
(`Checkpointer`); until then a transactional target gets no checkpoint with the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import DeadLetter
from pillows.dead_letters.quoted_values import hide_values
from pillows.dead_letters.tail_dead_letters import TailDeadLetters
from pillows.delivery import stale_writes
from pillows.delivery.fanout import FanOut, find_divergence
from pillows.delivery.items import (
    Item,
    PartitionedItems,
    count_consecutive_failures,
    partition_items,
    transform_chunks,
)
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity, SourceLookup
from pillows.models import Batch, DocumentRows, TransportResult, newest
from pillows.observer import Rewind
from pillows.progress.checkpointer import TailProgress
from pillows.progress.watermark import WatermarkMove
from pillows.retry.retrier import Retrier
from pillows.stages.transforms import ChunkedTransform, Transform

#: Consecutive documents before a rewind of the source is reported, if nearly all were written before. Larger
#: than a replay after a crash: the default `max_uncheckpointed` and the batches in flight.
REWIND_MIN_DOCUMENTS = 10_000
REWIND_MIN_STALE_RATIO = 0.9


class BatchResult(Struct, frozen=True, kw_only=True):
    """The outcome of one batch.

    Attributes:
        move: the progress of the watermark.
    """

    move: WatermarkMove


class BatchDelivery:
    """Writes the batches of one tail.

    Args:
        transform: the pillow's transform; called here if it takes chunks.
        fanout: delivers to the transports.
        progress: takes the acknowledgements.
        dead_letters: stores documents that can never be written.
        source: re-checks refused documents.
        retrier: retries reads of the source; has the tail, its observer and its clock.
        lock: held while changing state that batches in flight share.
        trust_equal: whether a document that a target holds in the same version counts as a replay. If False,
            it is written again, unless another target holds a newer version.
    """

    def __init__(
        self,
        transform: Transform,
        *,
        fanout: FanOut,
        progress: TailProgress,
        dead_letters: TailDeadLetters,
        source: SourceLookup,
        retrier: Retrier,
        lock: AbstractContextManager[object],
        trust_equal: bool = True,
    ) -> None:
        self._tail = retrier.tail
        self._observer = retrier.observer
        self._clock = retrier.waiter.clock
        self._chunked = transform if isinstance(transform, ChunkedTransform) else None
        self._dead_letters = dead_letters
        self._fanout = fanout
        self._progress = progress
        self._source = source
        self._retrier = retrier
        self._lock = lock
        self._trust_equal = trust_equal
        self._consecutive = 0
        self._rewind = RewindDetector()
        self._raised_for: str | None = None
        self._settled_purge: str | None = None

    def write(self, items: Sequence[Item]) -> BatchResult:
        """Write one batch and acknowledge its changes.

        Several batches may be written at once, if no document is in two of them.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
            FatalError: the tail cannot continue.
            StoppedError: a stop was requested while a target was unreachable; nothing is acknowledged.
        """
        began = self._clock.monotonic()
        if self._chunked is not None:
            with_text = self._dead_letters.options.exception_text
            items = transform_chunks(self._tail, items, self._chunked, with_text=with_text)
            seconds = self._clock.monotonic() - began
            self._observer.stage(self._tail, stage="transform", seconds=seconds)
        work = partition_items(items)
        for each in self._observer.data_observers:
            each.transformed(self._tail, documents=work.documents)
        with self._lock:
            if work.failures:  # first: no target may save a checkpoint past them
                self._store_dead_letters(work.failures, items)
            if work.least_epoch > self._progress.checkpoint.epoch:
                self._progress.raise_epoch(work.least_epoch)
            batch = self._make_batch(work)
        results = self._fanout.deliver(batch) if batch.documents else {}
        with self._lock:
            move = self._settle(items, work, batch, results)
            self._report(batch, results, move, began)
        return BatchResult(move=move)

    def _make_batch(self, work: PartitionedItems) -> Batch:
        checkpoint = self._progress.checkpoint
        documents = newest(work.documents)
        # A target may not save the checkpoint with the rows if a dead letter must be synced or cleared first,
        # or a document must be re-checked because an older state of it came after a newer one.
        may_commit = self._progress.is_transactional and not (
            work.purge_seq
            or self._dead_letters.store.holds_back(self._tail, documents)
            or (
                len(documents) < len(work.documents)
                and stale_writes.has_regression(documents, work.documents)
            )
        )
        return Batch(
            documents=documents,
            epoch=checkpoint.epoch,
            first_pass=checkpoint.first_pass and not checkpoint.pass_done,
            checkpoint=self._progress.preview(work.acks) if may_commit else None,
        )

    def _settle(
        self,
        items: Sequence[Item],
        work: PartitionedItems,
        batch: Batch,
        results: Mapping[str, TransportResult],
    ) -> WatermarkMove:
        """Do everything that a batch needs before it is acknowledged, and acknowledge it."""
        dead: set[str] = set()
        if any(result.dead for result in results.values()):
            dead_letters = list_dead_letters(self._tail, batch, results)
            self._store_dead_letters(dead_letters, items)
            self._report_divergence(results)
            dead = {each.id for each in dead_letters}
        if work.failures or dead or self._consecutive:
            self._count_consecutive(items, dead)
        last = results
        refused = [result.refused for result in results.values() if result.refused]
        if refused or len(batch.documents) < len(work.documents):
            last = merge_results(results, self._rewrite_regressed(batch, refused, work.documents))
        self._dead_letters.store.clear(self._tail, batch.documents, last)
        if work.purge_seq:
            self._settle_purge(work, batch, results)
        # With one transport, its committed checkpoint covers the whole batch.
        committed = next(iter(results.values())).committed if len(results) == 1 else None
        return self._progress.acknowledge(work.acks, committed)

    # --- dead letters

    def _store_dead_letters(self, dead_letters: Sequence[DeadLetter], items: Sequence[Item]) -> None:
        self._dead_letters.add(locate_dead_letters(dead_letters, items))

    def _count_consecutive(self, items: Sequence[Item], dead: Container[str]) -> None:
        self._consecutive = count_consecutive_failures(self._consecutive, items, dead)
        if self._consecutive >= self._dead_letters.options.max_consecutive:
            raise FatalError(
                f"{self._consecutive} documents in a row could not be written: the configuration is wrong, "
                "not the documents.",
                remedy=f"see `pillowd dead-letter list {self._tail}`, correct transform or mapping, "
                f"`pillowd reload`, then `pillowd dead-letter retry {self._tail} --all`",
            )

    # --- documents that regressed in the source

    def _rewrite_regressed(
        self, batch: Batch, refused: Sequence[Mapping[str, int]], arrived: Sequence[DocumentRows]
    ) -> Mapping[str, TransportResult]:
        """Rewrite documents that regressed in the source; return the results."""
        last = {document.id: document for document in arrived}
        # A concurrent batch raised the epoch: a document that is equal under the old epoch may have been
        # purged.
        raised = self._progress.checkpoint.epoch > batch.epoch
        confirmed, suspected = self._find_regressed(batch, refused, last, raised=raised)
        regressed = confirmed | suspected
        if not regressed:
            return {}
        if confirmed:
            reason = f"{len(confirmed)} documents regressed in the source"
            self._observer.rewind(self._tail, kind=Rewind.REGRESSED, reason=reason)
        if not raised:
            self._progress.raise_epoch()
        again = replace(
            batch,
            documents=stale_writes.rows_to_rewrite(last, regressed),
            epoch=self._progress.checkpoint.epoch,
            checkpoint=None,
        )
        rewritten = self._fanout.deliver(again)
        if dead_letters := list_dead_letters(self._tail, again, rewritten):
            self._store_dead_letters(dead_letters, ())
        return rewritten

    def _find_regressed(
        self,
        batch: Batch,
        refused: Sequence[Mapping[str, int]],
        last: Mapping[str, DocumentRows],
        *,
        raised: bool,
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Return the documents that regressed, and those of an equal version that may have.

        After a purge, or a split of a shard that looks like one, a replay may be a recreated document.
        """
        suspected = stale_writes.find_newer_in_target(batch, refused, last)
        confirm = partial(stale_writes.confirm_regressed, suspected, self._source, self._retrier.waiter)
        regressed = self._retrier.retry_read("source", confirm)
        equal = stale_writes.find_equal(batch, refused)
        if equal and (raised or self._was_purged()):
            return regressed, equal
        if not self._trust_equal:
            return regressed, {id: version for id, version in equal.items() if id not in suspected}
        return regressed, {}

    def _was_purged(self) -> bool:
        """Return whether the source was purged since the last purge that raised the epoch.

        The checkpoint notes a purge only once the feed has reported the purged documents: see
        `_settle_purge`.
        """
        found = self._retrier.retry_read("source", self._source.identify)
        if not found.purged_since(self._raised_for or self._progress.checkpoint.purge_seq):
            return False
        self._raised_for = found.purge_seq
        return True

    def _settle_purge(
        self, work: PartitionedItems, batch: Batch, results: Mapping[str, TransportResult]
    ) -> None:
        """Raise the epoch once after a purge if a purged document exists again, maybe in its former version.

        Otherwise none is needed: any later document is newer than a purged document's version 0.
        """
        if not DatabaseIdentity(purge_seq=work.purge_seq).purged_since(self._progress.checkpoint.purge_seq):
            return
        self._raised_for = work.purge_seq
        if self._settled_purge == work.purge_seq:  # by an earlier batch of the same purge
            return
        raised = self._progress.checkpoint.epoch > batch.epoch  # rows were removed under another epoch
        refused = [result.refused for result in results.values()]
        if not raised and (work.recreated or stale_writes.has_returned(batch, refused)):
            self._progress.raise_epoch()
            raised = True
        if raised:
            self._settled_purge = work.purge_seq

    # --- reports

    def _report_divergence(self, results: Mapping[str, TransportResult]) -> None:
        for id, transports in find_divergence(results).items():
            details = {"id": id, "missing_in": ", ".join(transports)}
            self._observer.warning(self._tail, event="transports.diverged", details=details)

    def _report(
        self, batch: Batch, results: Mapping[str, TransportResult], move: WatermarkMove, began: float
    ) -> None:
        now = self._clock.monotonic()
        if move.arrived_at is not None:
            self._observer.acknowledged(self._tail, changes=move.changes, seconds=now - move.arrived_at)
        refused = {id for result in results.values() for id in result.refused}
        rewound = self._rewind.count(len(batch.documents), len(refused))
        if rewound:
            reason = f"{rewound} documents in a row were written before"
            self._observer.rewind(self._tail, kind=Rewind.REPEATED, reason=reason)
        self._observer.batch(
            self._tail,
            documents=len(batch.documents),
            refused=sum(len(result.refused) for result in results.values()),
            dead=sum(len(result.dead) for result in results.values()),
            seconds=now - began,
        )


class RewindDetector:
    """Detects a rewound source: nearly every document was written before.

    CouchDB rewinds without notice (a lost shard, a restored node; apache/couchdb#3885). The replay is
    harmless, but explains a growing lag.
    """

    def __init__(self) -> None:
        self._replayed = 0

    def count(self, documents: int, refused: int) -> int:
        """Count a batch. Return how many documents in a row were written before, once per rewind; else 0."""
        if refused < REWIND_MIN_STALE_RATIO * documents:
            self._replayed = 0
            return 0
        before, self._replayed = self._replayed, self._replayed + refused
        return self._replayed if before < REWIND_MIN_DOCUMENTS <= self._replayed else 0


def list_dead_letters(
    tail: TailKey, batch: Batch, results: Mapping[str, TransportResult]
) -> list[DeadLetter]:
    """Return a dead letter for each document that a transport can never write, without a value of it."""
    return [
        DeadLetter(
            tail=tail,
            transport=name,
            id=document.id,
            rev=document.rev,
            leaf_version=document.leaf_version,
            stage="transport",
            error=hide_values(result.dead[document.id], chain.from_iterable(document.rows.values())),
        )
        for name, result in results.items()
        if result.dead
        for document in batch.documents
        if document.id in result.dead
    ]


def locate_dead_letters(dead_letters: Collection[DeadLetter], items: Sequence[Item]) -> list[DeadLetter]:
    """Return the dead letters, each with the position after its change; empty if there is none."""
    ids = {each.id for each in dead_letters}
    seqs = {
        outcome.id: str(pending_range.seq or "")
        for pending_range, outcome in items
        if outcome is not None and outcome.id in ids
    }
    return [msgspec.structs.replace(each, seq=seqs.get(each.id, "")) for each in dead_letters]


def merge_results(
    first: Mapping[str, TransportResult], again: Mapping[str, TransportResult]
) -> Mapping[str, TransportResult]:
    """Merge the results of two writes: a document is dead if it was dead in either."""
    return {
        name: replace(each, dead={**each.dead, **again[name].dead}) if name in again else each
        for name, each in first.items()
    }
