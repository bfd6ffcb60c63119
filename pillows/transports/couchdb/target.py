"""One CouchDB database that is written to: the requests that upserting and replicating share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from checkpoints import TailKey
from pillows.couch.client import CouchClient
from pillows.couch.errors import MissingError, RejectedError
from pillows.errors import RetryableError
from pillows.models import WriteResult, revision_number
from pillows.transports.base import TargetState
from pillows.transports.couchdb.leaves import all_leaves

#: Documents per request. Their bodies come along with a read, so it is not the batch's whole size.
GROUP_DOCUMENTS = 200

#: How long a server may work before the first byte of its answer.
_SILENT_SECONDS = 60.0

#: With these CouchDB refuses a whole request for what one document is: a bad field, too large.
_OF_A_DOCUMENT = {400, 413}


class Leaf(msgspec.Struct, frozen=True):
    """What is needed of a leaf revision.

    Attributes:
        id, rev, deleted: as in CouchDB.
        write_version: what pillowd stored in it; anything where it is somebody else's document.
    """

    id: str = msgspec.field(name="_id")
    rev: str = msgspec.field(name="_rev")
    deleted: bool = msgspec.field(name="_deleted", default=False)
    write_version: Any = msgspec.field(name="pillowd_version", default=None)

    @property
    def rank(self) -> tuple[bool, int, str]:
        """CouchDB's choice of the winner: live before deleted, then generation, then hash."""
        return (not self.deleted, revision_number(self.rev), self.rev.partition("-")[2])


class _Error(msgspec.Struct):
    error: str = ""
    reason: str | None = None


class _Found(msgspec.Struct):
    ok: Leaf | None = None
    error: _Error | None = None


class _Result(msgspec.Struct):
    id: str
    docs: list[_Found]


class _Results(msgspec.Struct):
    results: list[_Result]


class _Written(msgspec.Struct):
    id: str = ""
    error: str = ""
    reason: str | None = None


class _Row(msgspec.Struct):
    id: str
    doc: Leaf | None = None


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
        key: the tail; its epoch is kept in a local document of the database, and the greatest epoch of all
            tails that ever wrote there in another one.
    """

    def __init__(self, couch: CouchClient, database: str, key: TailKey) -> None:
        self.couch = couch
        self.database = database
        self._key = key
        digest = hashlib.sha256(str(key).encode()).hexdigest()[:16]
        self._ours = f"{couch.path(database)}/_local/pillowd-{digest}"
        self._anybodys = f"{couch.path(database)}/_local/pillowd"

    def path(self, name: str) -> str:
        """The path of one of the database's own resources."""
        return self.couch.path(self.database, name)

    def open(self, *, create: bool, by_revisions: bool = False) -> TargetState:
        """What the database remembers; made if it is missing and may be.

        Args:
            create: whether it may be made.
            by_revisions: it is written as a replica: there another pillow on the same source is no foreigner,
                and whoever else wrote there is one, pillowd or not.

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
        ours, anybodys = self._epoch(self._ours), self._epoch(self._anybodys)
        foreign_epoch = anybodys.epoch if anybodys else None
        if by_revisions:
            known = anybodys.source == self._key.source if anybodys else not self._has_documents()
            foreign_epoch = None if known else foreign_epoch or 0
        return TargetState(
            epoch=ours.epoch if ours else None, empty=info.doc_count == 0, foreign_epoch=foreign_epoch
        )

    def note_epoch(self, epoch: int) -> None:
        """Stores the tail's epoch durably, where it is higher than the stored one."""
        for path in (self._anybodys, self._ours):
            known = self._epoch(path)
            if known is not None and known.epoch >= epoch:
                continue
            body = {"pillow": self._key.pillow, "source": self._key.source, "epoch": epoch}
            if known is not None:
                body["_rev"] = known.rev
            self.couch.json("PUT", path, dict[str, Any], body=body)

    def leaves(self, ids: Sequence[str]) -> dict[str, list[Leaf]]:
        """All leaf revisions of these documents, the winner first; unknown ids are missing.

        Raises:
            RetryableError: the server cannot tell of one of them now.
        """
        results = all_leaves(self.couch, self.path("_bulk_get"), _Results, ids)
        return {result.id: found for result in results if (found := _leaves(result))}

    def send(self, documents: Mapping[str, Sequence[bytes]], *, new_edits: bool = True) -> WriteResult:
        """Writes documents with `_bulk_docs`.

        Args:
            documents: id -> what to write for it.
            new_edits: False stores revisions as they are.

        Raises:
            RetryableError: nothing is known of the whole request.
        """
        if not documents:
            return WriteResult()
        bodies = [msgspec.Raw(body) for its_bodies in documents.values() for body in its_bodies]
        try:
            rows = self.couch.json(
                "POST",
                self.path("_bulk_docs"),
                list[_Written],
                body={"docs": bodies, "new_edits": new_edits},
                silent_seconds=_SILENT_SECONDS,
            )
        except RejectedError as error:
            if error.status not in _OF_A_DOCUMENT:
                raise
            return self._send_halves(documents, error, new_edits=new_edits)
        return _outcome(documents, rows, all_answered=new_edits)

    def purge(self, leaves: Mapping[str, Sequence[Leaf]]) -> None:
        """Removes documents without a trace.

        Raises:
            RetryableError, AccessError: as `CouchClient.json`; purging takes an administrator.
        """
        ids = list(leaves)
        for start in range(0, len(ids), 100):  # `[purge] max_document_id_number`
            body = {id: [leaf.rev for leaf in leaves[id]] for id in ids[start : start + 100]}
            self.couch.json("POST", self.path("_purge"), dict[str, Any], body=body)

    def pages(self) -> Iterator[list[Leaf]]:
        """All live documents, some at a time, in the order of their ids."""
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
        """Whether there are any but design documents, which a replica may have of its own."""
        sides = {"endkey": "_design/", "inclusive_end": False}, {"startkey": "_design0"}
        found = (
            self.couch.json("POST", self.path("_all_docs"), _Rows, body={"limit": 1, **side})
            for side in sides
        )
        return any(each.rows for each in found)

    def _epoch(self, path: str) -> _Epoch | None:
        try:
            return self.couch.json("GET", path, _Epoch)
        except RejectedError as error:
            if error.status != 404:
                raise
            return None

    def _send_halves(
        self, documents: Mapping[str, Sequence[bytes]], error: RejectedError, *, new_edits: bool
    ) -> WriteResult:
        ids = list(documents)
        if len(ids) == 1:
            return WriteResult(dead={ids[0]: str(error)})
        middle = len(ids) // 2
        halves = [
            self.send({id: documents[id] for id in half}, new_edits=new_edits)
            for half in (ids[:middle], ids[middle:])
        ]
        return WriteResult(
            dead={id: why for half in halves for id, why in half.dead.items()},
            retry={id: why for half in halves for id, why in half.retry.items()},
        )


def _leaves(result: _Result) -> list[Leaf]:
    for found in result.docs:
        if found.error is not None and found.error.error != "not_found":
            raise RetryableError(f"The target cannot tell what it has of {result.id!r}: {found.error.error}.")
    return sorted((found.ok for found in result.docs if found.ok), key=lambda leaf: leaf.rank, reverse=True)


def _outcome(
    documents: Mapping[str, Sequence[bytes]], rows: Sequence[_Written], *, all_answered: bool
) -> WriteResult:
    """What the rows of `_bulk_docs` say; with `new_edits=false` only failures have one."""
    dead: dict[str, str] = {}
    retry = dict.fromkeys(documents, "The target said nothing of it.") if all_answered else {}
    for row in rows:
        retry.pop(row.id, None)
    for row in rows:
        if row.error in ("forbidden", "unauthorized"):  # a validation function of the target
            dead[row.id] = f"{row.error}: {row.reason}"
        elif row.error:
            retry[row.id] = f"{row.error}: {row.reason}"
    return WriteResult(dead=dead, retry={id: why for id, why in retry.items() if id not in dead})
