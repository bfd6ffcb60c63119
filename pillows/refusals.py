"""A refused write is looked at, not believed.

A guarded target refuses what is not newer than what it has. Mostly that is a replay, and right. But
the same answer comes when the source went back (a document purged and created again starts at
generation 1; a database restored from a backup), and then believing it would leave an old state in
the target for ever. So the source is asked for the document's leaves: only if their generations sum
up to at least the stored version is the refusal right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pillows.errors import FencedError
from pillows.models import Batch, DocumentRows, epoch_of, guard, version_of
from pillows.waiting import Waiter

#: A copy in a cluster may lag behind the one that the feed was read from: the leaves are read this
#: often, so far apart, before a document counts as gone back (the replicator waits 2 s as well:
#: couch_replicator's `missing_doc_retry_msec`).
LOOKS = 3
LOOK_AGAIN_SECONDS = 2.0


class Leaves(Protocol):
    """Reads the present versions of documents from the source."""

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Id -> the sum of the generations of its leaves; ids that are not there are missing."""


def suspects(batch: Batch, refused: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The refused documents whose stored guard is above ours: id -> that guard.

    Args:
        batch: what was written.
        refused: for each transport, id -> the guard that it stores.

    Raises:
        FencedError: a target stores a later epoch than ours.
    """
    ours = {d.id: guard(batch.epoch, d.version) for d in batch.documents}
    above: dict[str, int] = {}
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


def went_back(suspected: Mapping[str, int], source: Leaves, waiter: Waiter) -> dict[str, int]:
    """Which of the suspected documents have gone back in the source: id -> present version.

    A version of 0 means that the document is not there at all.

    Args:
        suspected: id -> the guard that a target stores.
        source: where the leaves are read.
        waiter: waits between looks.
    """
    behind = dict(suspected)
    present: Mapping[str, int] = {}
    for look in range(LOOKS):
        if not behind:
            break
        if look:
            waiter.wait(LOOK_AGAIN_SECONDS)
        present = source.leaves(list(behind))
        behind = {id: stored for id, stored in behind.items() if present.get(id, 0) < version_of(stored)}
    return {id: present.get(id, 0) for id in behind}


def rewritten(batch: Batch, gone_back: Mapping[str, int], epoch: int) -> Batch:
    """The documents that have gone back, to be written again under a raised epoch.

    What is not in the source any more loses its rows.
    """
    documents = [
        d if gone_back[d.id] else DocumentRows(id=d.id, rev=d.rev, version=d.version, rows={})
        for d in batch.documents
        if d.id in gone_back
    ]
    return Batch(documents=documents, epoch=epoch, first_pass=batch.first_pass)
