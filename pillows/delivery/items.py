"""The items that the pipeline pushes, one for each change, and the partition of a batch of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from msgspec import Struct

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import DeadLetter, make_dead_letter
from pillows.models import Document, DocumentRows, Row
from pillows.progress.watermark import PendingRange
from pillows.stages.transforms import ChunkedTransform

#: The outcome of one change: its rows, the document if rows are made in chunks, a dead letter, or None if
#: there is nothing to write.
Outcome = DocumentRows | Document | DeadLetter | None

#: A pushed change: the pending range that waits for its acknowledgement, and its outcome.
Item = tuple[PendingRange, Outcome]


class PartitionedItems(Struct, frozen=True, kw_only=True):
    """The items of a batch, grouped by the action that they need.

    Attributes:
        acks: range -> number of its changes.
        documents: whose rows are written.
        failures: dead letters.
        purge_seq: the source's purge position, if some are deletions of purged documents.
        recreated: as `ChangeBatch.recreated`.
        least_epoch: as `ChangeBatch.least_epoch`.
    """

    acks: Mapping[PendingRange, int]
    documents: Sequence[DocumentRows]
    failures: Sequence[DeadLetter]
    purge_seq: str | None
    recreated: bool
    least_epoch: int


def id_of(item: Item) -> str:
    """Return the id of an item's document; empty if there is nothing to do."""
    return "" if item[1] is None else item[1].id


def partition_items(items: Sequence[Item]) -> PartitionedItems:
    """Group the items of a batch by the action that they need."""
    acks = Counter(pending_range for pending_range, _ in items)
    purged = [pending_range for pending_range in acks if pending_range.purge_seq]
    return PartitionedItems(
        acks=acks,
        documents=[outcome for _, outcome in items if type(outcome) is DocumentRows],
        failures=[outcome for _, outcome in items if type(outcome) is DeadLetter],
        purge_seq=purged[-1].purge_seq if purged else None,
        recreated=any(pending_range.recreated for pending_range in purged),
        least_epoch=max((pending_range.least_epoch for pending_range in acks), default=0),
    )


def count_consecutive_failures(before: int, items: Sequence[Item], dead: Container[str]) -> int:
    """Return the number of consecutive documents that have failed.

    Documents without rows are ignored: a pillow that drops half of them can still be wrong.

    Args:
        before: the number before this batch.
        items: a batch that was written.
        dead: ids that a transport can never write.
    """
    count = before
    for _, outcome in items:
        if type(outcome) is DeadLetter or (type(outcome) is DocumentRows and outcome.id in dead):
            count += 1
        elif type(outcome) is DocumentRows and outcome.rows:
            count = 0
    return count


def transform_chunks(
    tail: TailKey, items: Sequence[Item], transform: ChunkedTransform, *, with_text: bool = False
) -> list[Item]:
    """Return the same items, with rows for the documents that have none yet.

    Args:
        tail: the tail's key.
        items: a batch.
        transform: makes the rows.
        with_text: as `ErrorOptions.exception_text`.
    """
    documents = [outcome for _, outcome in items if type(outcome) is Document]
    made = iter(zip(documents, transform.many(documents), strict=True))
    return [
        (pending_range, _to_outcome(tail, *next(made), with_text) if type(outcome) is Document else outcome)
        for pending_range, outcome in items
    ]


def _to_outcome(
    tail: TailKey, document: Document, rows: Mapping[str, Sequence[Row]] | Exception, with_text: bool
) -> Outcome:
    if isinstance(rows, Exception):
        return make_dead_letter(tail, document, "transform", rows, with_text=with_text)
    size_bytes = len(document.raw) if document.raw is not None else 0
    return DocumentRows(
        id=document.id, rev=document.rev, leaf_version=document.leaf_version, rows=rows, size_bytes=size_bytes
    )
