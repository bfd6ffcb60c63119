"""Re-check writes that a target refused as stale.

A refusal usually means a replay. It can also mean that the source was restored to an older state, or that a
document was purged and recreated (it starts at revision number 1 again); believing it would then leave an
outdated row for good. So the leaves are read from the source: the refusal stands only if their revision
numbers add up to at least the stored version.

An equal version is a replay, unless the source was purged since: a document with revision number 1 that was
purged and recreated has revision number 1 again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pillows.errors import LaterEpochError
from pillows.feed.base import SourceLookup
from pillows.models import Batch, DocumentRows, epoch_of, leaf_version_of, write_version
from pillows.retry.cancellable import StopAwareWaiter

#: How many times, and at which interval, the leaves are read before a document counts as regressed: a copy in
#: a cluster may lag behind the copy that the feed was read from (the replicator waits 2 s as well:
#: couch_replicator's `missing_doc_retry_msec`).
RECHECKS = 3
RECHECK_SECONDS = 2.0


def has_regression(documents: Sequence[DocumentRows], arrived: Sequence[DocumentRows]) -> bool:
    """Return whether an older state of a document came after the newest one, in one batch.

    Args:
        documents: the newest state of each.
        arrived: all that came, in order.
    """
    last = {d.id: d.leaf_version for d in arrived}
    return any(d.leaf_version > last[d.id] for d in documents)


def find_newer_in_target(
    batch: Batch, refused: Sequence[Mapping[str, int]], last: Mapping[str, DocumentRows]
) -> dict[str, int]:
    """Return the documents with a version newer than their last change: id -> that write version.

    Either a target holds it and refused the document, or it came earlier in this batch.

    Args:
        batch: the written batch.
        refused: for each transport, id -> the write version that it stores.
        last: id -> the last entry of each document.

    Raises:
        LaterEpochError: a target stores a later epoch than ours.
    """
    ours = {d.id: write_version(batch.epoch, d.leaf_version) for d in batch.documents}
    above = {d.id: ours[d.id] for d in batch.documents if d.leaf_version > last[d.id].leaf_version}
    for answers in refused:
        for id, stored in answers.items():
            if epoch_of(stored) > batch.epoch:
                raise LaterEpochError(
                    f"The target holds {id!r} of epoch {epoch_of(stored)}, ours is {batch.epoch}: "
                    "another pillowd has begun a later pass.",
                    remedy="stop the other one, or restart this pillow to take the later epoch over",
                    epoch=epoch_of(stored),
                )
            if stored > ours[id]:
                above[id] = max(stored, above.get(id, 0))
    return above


def find_equal(batch: Batch, refused: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the documents that a target refused because it holds the same version: id -> that version.

    Without those of version 0: they were purged, in the target as well.
    """
    ours = {d.id: write_version(batch.epoch, d.leaf_version) for d in batch.documents if d.leaf_version}
    same = {id for answers in refused for id, stored in answers.items() if stored == ours.get(id)}
    return {id: leaf_version_of(ours[id]) for id in same}


def has_returned(batch: Batch, refused: Iterable[Mapping[str, int]]) -> bool:
    """Return whether a target kept rows of a purged document which has been created again since.

    Args:
        batch: the written batch; a purged document has version 0.
        refused: for each transport, id -> the write version that it stores, if it removed no row since.
    """
    gone = write_version(batch.epoch, 0)
    purged = {document.id for document in batch.documents if not document.leaf_version}
    return any(id in purged and stored != gone for answers in refused for id, stored in answers.items())


def confirm_regressed(
    suspected: Mapping[str, int], source: SourceLookup, waiter: StopAwareWaiter
) -> dict[str, int]:
    """Return the suspected documents that did regress in the source: id -> present version.

    Version 0: the document does not exist.

    Args:
        suspected: id -> the write version that a target stores.
        source: where the leaves are read.
        waiter: waits between the reads.
    """
    behind = dict(suspected)
    present: Mapping[str, int] = {}
    for look in range(RECHECKS):
        if not behind:
            break
        if look:
            waiter.wait(RECHECK_SECONDS)
        present = source.leaves(list(behind))
        behind = {id: stored for id, stored in behind.items() if present.get(id, 0) < leaf_version_of(stored)}
    return {id: present.get(id, 0) for id in behind}


def rows_to_rewrite(last: Mapping[str, DocumentRows], regressed: Mapping[str, int]) -> list[DocumentRows]:
    """Return the rows of regressed documents, to be written again under a raised epoch.

    A document that is no longer in the source loses its rows.
    """
    return [
        d if regressed[d.id] else DocumentRows(id=d.id, rev=d.rev, leaf_version=d.leaf_version, rows={})
        for d in last.values()
        if d.id in regressed
    ]
