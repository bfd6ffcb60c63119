"""Re-check writes that a target refused as stale.

A guarded target refuses what is not newer than what it has. Mostly that is a replay, and right. But
the same answer comes when the source went back (a document purged and created again starts at
generation 1; a database restored from a backup), and then believing it would leave an old state in
the target for ever. So the source is asked for the document's leaves: only if their generations sum
up to at least the stored version is the refusal right.

An equal version is a replay, unless the source was purged since: a document that was at generation 1
and was created anew is at generation 1 again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pillows.errors import FencedError
from pillows.feed.base import SourceLookup
from pillows.models import Batch, DocumentRows, epoch_of, leaf_version_of, write_version
from pillows.retry.cancellable import StopAwareWaiter

#: A copy in a cluster may lag behind the one that the feed was read from: the leaves are read this
#: often, so far apart, before a document counts as gone back (the replicator waits 2 s as well:
#: couch_replicator's `missing_doc_retry_msec`).
RECHECKS = 3
RECHECK_SECONDS = 2.0


def has_regression(documents: Sequence[DocumentRows], arrived: Sequence[DocumentRows]) -> bool:
    """Whether an older state of a document came behind the newest one, in one batch.

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
        batch: what was written.
        refused: for each transport, id -> the write version that it stores.
        last: id -> what came last of each document.

    Raises:
        FencedError: a target stores a later epoch than ours.
    """
    ours = {d.id: write_version(batch.epoch, d.leaf_version) for d in batch.documents}
    above = {d.id: ours[d.id] for d in batch.documents if d.leaf_version > last[d.id].leaf_version}
    for answers in refused:
        for id, stored in answers.items():
            if epoch_of(stored) > batch.epoch:
                raise FencedError(
                    f"The target holds {id!r} of epoch {epoch_of(stored)}, ours is {batch.epoch}: "
                    "another pillowd has begun a later pass.",
                    remedy="stop the other one, or restart this pillow to take the later epoch over",
                )
            if stored > ours[id]:
                above[id] = max(stored, above.get(id, 0))
    return above


def find_equal(batch: Batch, refused: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the documents that a target refused because it has their version: id -> that version."""
    ours = {d.id: write_version(batch.epoch, d.leaf_version) for d in batch.documents}
    same = {id for answers in refused for id, stored in answers.items() if stored == ours[id]}
    return {id: leaf_version_of(ours[id]) for id in same}


def confirm_regressed(
    suspected: Mapping[str, int], source: SourceLookup, waiter: StopAwareWaiter
) -> dict[str, int]:
    """Return the suspected documents that went back in the source: id -> present version.

    A version of 0 means that the document is not there at all.

    Args:
        suspected: id -> the write version that a target stores.
        source: where the leaves are read.
        waiter: waits between looks.
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


def rows_to_rewrite(last: Mapping[str, DocumentRows], gone_back: Mapping[str, int]) -> list[DocumentRows]:
    """Return the rows of documents that went back, to be written again under a raised epoch.

    A document that is not in the source any more loses its rows.
    """
    return [
        d if gone_back[d.id] else DocumentRows(id=d.id, rev=d.rev, leaf_version=d.leaf_version, rows={})
        for d in last.values()
        if d.id in gone_back
    ]
