"""Copy documents from CouchDB to CouchDB with their revisions, as replication does.

All leaves of a document, conflicts and deletions included, are read from the source with their history and
attachments. Leaves that the target lacks are stored unchanged (`new_edits=false`), so a repetition writes
nothing. The source's present state is read, so an old batch cannot restore an old state, and no write version
is needed. A document that leaves the set is purged from the target instead of deleted: if it returned, its
revision would be an ancestor of our deletion, and it would stay deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from pillows.couch.bulk_get import Leaf, get_all_leaves, parse_leaf
from pillows.couch.client import CouchClient
from pillows.errors import RetryableError
from pillows.models import DocumentRows, Row, WriteResult, revision_number
from pillows.transports.couchdb.target import TargetDatabase

#: Documents per request to the source: with attachments they can be large.
GROUP_DOCUMENTS = 50

#: How long a copy of the source may lag behind the feed (as `join_overlap`). A document that is older
#: for longer was purged and created again, or restored.
LAG_SECONDS = 60.0


class _Missing(msgspec.Struct):
    missing: list[str] = []


class ReplicaWriter:
    """Replicates into one database.

    Args:
        target: the database.
        couch: the source's server.
        database: the source.
    """

    def __init__(self, target: TargetDatabase, couch: CouchClient, database: str) -> None:
        self._target = target
        self._couch = couch
        self._database = database
        self._lagging_since: dict[str, float] = {}

    def write(
        self,
        items: Sequence[tuple[DocumentRows, Sequence[Row]]],
        epoch: int,  # noqa: ARG002  # as in `UpsertWriter`
        *,
        first_pass: bool,
    ) -> WriteResult:
        """Copy documents that have rows, and deletions; remove the others.

        Raises:
            RetryableError: nothing is known of some of them.
        """
        wanted = self._list_wanted(items) if first_pass else [document for document, _ in items]
        with_rows = {document.id for document, rows in items if rows}
        dead: dict[str, str] = {}
        retry: dict[str, str] = {}
        for start in range(0, len(wanted), GROUP_DOCUMENTS):
            group = wanted[start : start + GROUP_DOCUMENTS]
            found = self._read_source([document.id for document in group])
            for document in group:
                self._check_not_older(document, found.get(document.id, []))
            kept = {id: leaves for id, leaves in found.items() if id in with_rows or _is_deleted(leaves)}
            self._purge([document.id for document in group if document.id not in kept])
            sent = self._target.send(self._list_lacking(kept), new_edits=False)
            dead |= sent.dead
            retry |= sent.retry
        return WriteResult(dead=dead, retry=retry)

    def sweep(self, epoch: int, kept: Collection[str]) -> int:  # noqa: ARG002  # as in `UpsertWriter`
        """Purge the documents that the source does not know; return their number."""
        swept = 0
        for page in self._target.read_pages():
            ids = [leaf.id for leaf in page if not leaf.id.startswith("_design/")]
            known = self._read_source(ids, bodies=False)
            swept += self._purge([id for id in ids if id not in known])
        return swept

    def _list_wanted(self, items: Sequence[tuple[DocumentRows, Sequence[Row]]]) -> list[DocumentRows]:
        """Return the documents of a first pass, without those that have no rows and are not stored."""
        stored = self._target.get_leaves([document.id for document, rows in items if not rows])
        return [document for document, rows in items if rows or document.id in stored]

    def _purge(self, ids: Sequence[str]) -> int:
        stored = self._target.get_leaves(ids)
        if stored:
            self._target.purge(stored)
        return len(stored)

    def _check_not_older(self, document: DocumentRows, leaves: Sequence[Leaf]) -> None:
        """Refuse leaves of a shard's copy that lags behind the feed. No leaf at all: it was purged since."""
        if not leaves or sum(revision_number(leaf.rev) for leaf in leaves) >= document.leaf_version:
            self._lagging_since.pop(document.id, None)
            return
        now = self._couch.clock.monotonic()
        if now - self._lagging_since.setdefault(document.id, now) < LAG_SECONDS:
            raise RetryableError(
                f"A copy of the source lags behind its feed: {document.id!r} is older there."
            )

    def _list_lacking(self, found: dict[str, list[Leaf]]) -> dict[str, list[bytes]]:
        """Return the JSON of the leaves that the target lacks."""
        if not found:
            return {}
        answer = self._target.couch.json(
            "POST",
            self._target.path("_revs_diff"),
            dict[str, _Missing],
            body={id: [leaf.rev for leaf in leaves] for id, leaves in found.items()},
        )
        return {
            id: [bytes(leaf.raw) for leaf in found[id] if leaf.rev in missing.missing]
            for id, missing in answer.items()
            if missing.missing
        }

    def _read_source(self, ids: Sequence[str], *, bodies: bool = True) -> dict[str, list[Leaf]]:
        """Return all leaves of documents in the source; an id that the source does not have is missing."""
        query = "?revs=true&attachments=true" if bodies else ""
        found = get_all_leaves(self._couch, self._database, ids, parse_leaf, query=query)
        if unanswered := set(ids) - found.keys():
            raise RetryableError(f"The source's answer does not mention {min(unanswered)!r}.")
        return {id: leaves for id, leaves in found.items() if leaves}


def _is_deleted(leaves: Sequence[Leaf]) -> bool:
    return all(leaf.deleted for leaf in leaves)
