"""One CouchDB database that is written to: the requests that upserting and replicating share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from checkpoints import TailKey
from pillows.couch.bulk_docs import REJECTED, WrittenRow, bulk_docs
from pillows.couch.bulk_get import get_all_leaves, parse_leaf
from pillows.couch.client import CouchClient
from pillows.couch.errors import MissingError, RejectedError
from pillows.models import WriteResult
from pillows.transports.base import TargetState

#: Documents per request. A read returns their bodies, so this is smaller than a batch.
GROUP_DOCUMENTS = 200

#: Documents per `_purge` (CouchDB's `[purge] max_document_id_number`).
_PURGED_DOCUMENTS = 100

#: Rows with these errors are final: a validation function of the target, or a document that CouchDB
#: rejects by itself.
_FINAL_ERRORS = ("forbidden", "unauthorized", REJECTED)


class TargetLeaf(msgspec.Struct, frozen=True):
    """A leaf revision in the target.

    Attributes:
        id, rev, deleted: as in CouchDB.
        write_version: stored by pillowd; any JSON value in a document of somebody else.
    """

    id: str = msgspec.field(name="_id")
    rev: str = msgspec.field(name="_rev")
    deleted: bool = msgspec.field(name="_deleted", default=False)
    write_version: Any = msgspec.field(name="pillowd_version", default=None)


parse_target_leaf = msgspec.json.Decoder(TargetLeaf).decode


def get_stored_version(leaves: Sequence[TargetLeaf]) -> int | None:
    """Return the winner's write version; None if there is none, or it is somebody else's document."""
    found = leaves[0].write_version if leaves else None
    return found if isinstance(found, int) else None


class _Row(msgspec.Struct):
    id: str
    doc: TargetLeaf | None = None


class _Rows(msgspec.Struct):
    rows: list[_Row]


class _Epoch(msgspec.Struct):
    epoch: int
    rev: str = msgspec.field(name="_rev")
    source: str = ""


class _Info(msgspec.Struct):
    doc_count: int


class TargetDatabase:
    """Writes to one database for one tail.

    Args:
        couch: the server.
        database: its name.
        key: the tail. A local document of the database holds its epoch, another one the greatest epoch
            of all tails that ever wrote there.
    """

    def __init__(self, couch: CouchClient, database: str, key: TailKey) -> None:
        self.couch = couch
        self.database = database
        self._key = key
        digest = hashlib.sha256(str(key).encode()).hexdigest()[:16]
        self._own_path = f"{couch.path(database)}/_local/pillowd-{digest}"
        self._common_path = f"{couch.path(database)}/_local/pillowd"

    def path(self, name: str) -> str:
        """Return the path of a resource of the database."""
        return self.couch.path(self.database, name)

    def open(self, *, create: bool, by_revisions: bool = False) -> TargetState:
        """Return what the database remembers.

        Args:
            create: create the database if it is missing.
            by_revisions: it is written as a replica. Then other pillows on the same source are not
                foreign, but everybody else is, even without pillowd.

        Raises:
            RetryableError, AccessError: as `CouchClient.json`; a missing database is retryable.
        """
        try:
            info = self.couch.json("GET", self.couch.path(self.database), _Info)
        except MissingError:
            if not create:
                raise
            self.couch.json("PUT", self.couch.path(self.database), dict[str, Any])
            info = _Info(doc_count=0)
        own, common = self._get_epoch(self._own_path), self._get_epoch(self._common_path)
        foreign_epoch = common.epoch if common else None
        if by_revisions:
            is_ours = common.source == self._key.source if common else not self._has_documents()
            foreign_epoch = None if is_ours else foreign_epoch or 0
        return TargetState(
            epoch=own.epoch if own else None, empty=info.doc_count == 0, foreign_epoch=foreign_epoch
        )

    def raise_epoch(self, epoch: int) -> None:
        """Store the tail's epoch durably, unless the stored one is as high."""
        for path in (self._common_path, self._own_path):
            known = self._get_epoch(path)
            if known is not None and known.epoch >= epoch:
                continue
            body = {"pillow": self._key.pillow, "source": self._key.source, "epoch": epoch}
            if known is not None:
                body["_rev"] = known.rev
            self.couch.json("PUT", path, dict[str, Any], body=body)

    def get_leaves(self, ids: Sequence[str]) -> dict[str, list[TargetLeaf]]:
        """Return all leaf revisions of documents, the winner first; unknown ids are missing.

        Raises:
            RetryableError: the server cannot read one of them now.
        """
        found = get_all_leaves(self.couch, self.database, ids, parse_target_leaf)
        return {id: leaves for id, leaves in found.items() if leaves}

    def get_bodies(self, ids: Sequence[str]) -> dict[str, msgspec.Raw]:
        """Return the JSON of the winning revisions; deleted documents are left out.

        Raises:
            RetryableError: see `get_leaves`.
        """
        found = get_all_leaves(self.couch, self.database, ids, parse_leaf)
        return {id: leaves[0].raw for id, leaves in found.items() if leaves and not leaves[0].deleted}

    def send(self, documents: Mapping[str, Sequence[bytes]], *, new_edits: bool = True) -> WriteResult:
        """Write documents with `_bulk_docs`.

        Args:
            documents: id -> the JSON of each revision to write.
            new_edits: False stores the revisions as they are.

        Raises:
            RetryableError: nothing is known of the whole request.
        """
        rows = bulk_docs(self.couch, self.database, list(documents.items()), new_edits=new_edits)
        return _sort_rows(documents, rows, all_answered=new_edits)

    def purge(self, leaves: Mapping[str, Sequence[TargetLeaf]]) -> None:
        """Remove documents without a trace.

        Raises:
            RetryableError, AccessError: as `CouchClient.json`; purging takes an administrator.
        """
        for start in range(0, len(leaves), _PURGED_DOCUMENTS):
            ids = list(leaves)[start : start + _PURGED_DOCUMENTS]
            body = {id: [leaf.rev for leaf in leaves[id]] for id in ids}
            self.couch.json("POST", self.path("_purge"), dict[str, Any], body=body)

    def read_pages(self) -> Iterator[list[TargetLeaf]]:
        """Yield pages of all live documents, in the order of their ids."""
        after = ""
        while True:
            # In the body, since an id may be longer than a URL can be.
            body = {"include_docs": True, "limit": GROUP_DOCUMENTS} | ({"startkey": after} if after else {})
            found = self.couch.json("POST", self.path("_all_docs"), _Rows, body=body)
            page = [row.doc for row in found.rows if row.doc is not None and row.id != after]
            if not page:
                return
            yield page
            after = page[-1].id

    def _has_documents(self) -> bool:
        """Return whether there are documents other than design documents, which a replica may add itself."""
        sides = {"endkey": "_design/", "inclusive_end": False}, {"startkey": "_design0"}
        found = (
            self.couch.json("POST", self.path("_all_docs"), _Rows, body={"limit": 1, **side})
            for side in sides
        )
        return any(each.rows for each in found)

    def _get_epoch(self, path: str) -> _Epoch | None:
        try:
            return self.couch.json("GET", path, _Epoch)
        except RejectedError as error:
            if error.status != 404:
                raise
            return None


def _sort_rows(
    documents: Mapping[str, Sequence[bytes]], rows: Sequence[WrittenRow], *, all_answered: bool
) -> WriteResult:
    """Return the outcome of `_bulk_docs`; with `new_edits=false` only failures have a row."""
    answered = {row.id for row in rows}
    dead = {row.id: str(row) for row in rows if row.error in _FINAL_ERRORS}
    retry = {
        id: "The target's answer does not mention it."
        for id in documents
        if all_answered and id not in answered
    }
    retry |= {row.id: str(row) for row in rows if row.error and row.id not in dead}
    return WriteResult(dead=dead, retry=retry)
