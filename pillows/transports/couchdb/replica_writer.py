"""Copies documents from CouchDB to CouchDB with their revisions, as replication does.

All leaves of a document, conflicts and deletions included, are read from the source with their history
and attachments, and those that the target lacks are stored as they are (`new_edits=false`). Doing it
twice writes nothing. What is read is the source's state of now, so an old batch cannot bring an old
state back, and no write version is needed. A document that leaves the set is purged from the target: a
deletion of our own would outlive its return, because its old revision would then be an ancestor of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from pillows.couch.client import CouchClient
from pillows.errors import RetryableError
from pillows.models import DocumentRows, Row, WriteResult, revision_number
from pillows.transports.couchdb.leaves import all_leaves
from pillows.transports.couchdb.target import Leaf, TargetDatabase

#: Documents per request to the source: with attachments they can be large.
GROUP_DOCUMENTS = 50

#: So long a copy of the source may lag behind the feed (as `join_overlap` has it); what is older for
#: longer went back: purged and created anew, or restored.
DOUBT_SECONDS = 60.0


class _Error(msgspec.Struct):
    error: str = ""


class _Found(msgspec.Struct):
    ok: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class _Result(msgspec.Struct):
    id: str
    docs: list[_Found]


class _Results(msgspec.Struct):
    results: list[_Result]


class _Missing(msgspec.Struct):
    missing: list[str] = []


class Revision(msgspec.Struct, frozen=True):
    """A leaf of the source.

    Attributes:
        leaf: its revision.
        body: the document with `_revisions`, as the source gave it.
    """

    leaf: Leaf
    body: bytes


class Replica:
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
        self._doubted_at: dict[str, float] = {}

    def write(
        self,
        items: Sequence[tuple[DocumentRows, Sequence[Row]]],
        epoch: int,  # noqa: ARG002  # as in `Upserts`
        *,
        first_pass: bool,
    ) -> WriteResult:
        """Copies documents that have rows, and deletions; removes the others.

        Raises:
            RetryableError: nothing is known of some of them.
        """
        wanted = self._wanted(items) if first_pass else [document for document, _ in items]
        with_rows = {document.id for document, rows in items if rows}
        dead: dict[str, str] = {}
        retry: dict[str, str] = {}
        for start in range(0, len(wanted), GROUP_DOCUMENTS):
            group = wanted[start : start + GROUP_DOCUMENTS]
            found = self._revisions([document.id for document in group])
            for document in group:
                self._check_not_older(document, found.get(document.id, []))
            kept = {id: leaves for id, leaves in found.items() if id in with_rows or _is_deleted(leaves)}
            self._purge([document.id for document in group if document.id not in kept])
            sent = self._target.send(self._lacking(kept), new_edits=False)
            dead |= sent.dead
            retry |= sent.retry
        return WriteResult(dead=dead, retry=retry)

    def sweep(self, epoch: int, kept: Collection[str]) -> int:  # noqa: ARG002  # as in `Upserts`
        """Purges the documents that the source does not know; how many those were."""
        swept = 0
        for page in self._target.pages():
            ids = [leaf.id for leaf in page if not leaf.id.startswith("_design/")]
            known = self._revisions(ids, bodies=False)
            swept += self._purge([id for id in ids if id not in known])
        return swept

    def _wanted(self, items: Sequence[tuple[DocumentRows, Sequence[Row]]]) -> list[DocumentRows]:
        """In a first pass: without what has no rows and is not there either."""
        empty = [document.id for document, rows in items if not rows]
        there = self._target.leaves(empty) if empty else {}
        return [document for document, rows in items if rows or document.id in there]

    def _purge(self, ids: Sequence[str]) -> int:
        there = self._target.leaves(ids) if ids else {}
        if there:
            self._target.purge(there)
        return len(there)

    def _check_not_older(self, document: DocumentRows, leaves: Sequence[Revision]) -> None:
        """A copy of a shard may lag behind the feed; no leaf at all means that it was purged since."""
        if not leaves or sum(revision_number(one.leaf.rev) for one in leaves) >= document.leaf_version:
            self._doubted_at.pop(document.id, None)
            return
        now = self._couch.clock.monotonic()
        if now - self._doubted_at.setdefault(document.id, now) < DOUBT_SECONDS:
            raise RetryableError(
                f"A copy of the source lags behind its feed: {document.id!r} is older there."
            )

    def _lacking(self, found: dict[str, list[Revision]]) -> dict[str, list[bytes]]:
        """The bodies of those leaves that the target has not."""
        asked = {id: [one.leaf.rev for one in its] for id, its in found.items()}
        if not asked:
            return {}
        answer = self._target.couch.json(
            "POST", self._target.path("_revs_diff"), dict[str, _Missing], body=asked
        )
        return {
            id: [one.body for one in found[id] if one.leaf.rev in missing.missing]
            for id, missing in answer.items()
            if missing.missing
        }

    def _revisions(self, ids: Sequence[str], *, bodies: bool = True) -> dict[str, list[Revision]]:
        """All leaves of documents in the source; an id that it does not know is missing."""
        query = "?revs=true&attachments=true" if bodies else ""
        path = self._couch.path(self._database, "_bulk_get") + query
        results = all_leaves(self._couch, path, _Results, ids)
        if untold := set(ids) - {result.id for result in results}:
            raise RetryableError(f"The source said nothing of {min(untold)!r}.")
        return {result.id: its for result in results if (its := _revisions(result))}


def _revisions(result: _Result) -> list[Revision]:
    for found in result.docs:
        if found.error is not None and found.error.error != "not_found":
            raise RetryableError(f"The source cannot tell what it has of {result.id!r}: {found.error.error}.")
    bodies = [bytes(found.ok) for found in result.docs if isinstance(found.ok, msgspec.Raw)]
    return [Revision(msgspec.json.decode(body, type=Leaf), body) for body in bodies]


def _is_deleted(leaves: Sequence[Revision]) -> bool:
    return all(one.leaf.deleted for one in leaves)
