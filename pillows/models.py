"""The values that travel through a pillow, in the order of the data path.

`Change` (a row of the feed) -> `Document` (what the trigger extracts) -> `DocumentRows` (what the
transform returns) -> `Batch` (documents that are written together) -> `WriteResult` (the transport's answer).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from checkpoints import Checkpoint, Seq, TailKey
from pillows.errors import PermanentError

#: Bits of the leaf version, below the epoch, in a write version.
VERSION_BITS = 40

#: The highest leaf version that a write version can hold. With `new_edits=false` CouchDB stores any number.
MAX_LEAF_VERSION = (1 << VERSION_BITS) - 1

#: Stands between a database's name and a document's id, in a pillow on several databases. No name of a
#: database holds it (CouchDB docs, "/{db}").
KEY_SEPARATOR = ":"

#: One row of an output: named values, or a JSON object still as the bytes that CouchDB sent.
Row = Mapping[str, Any] | msgspec.Raw


def key_range(database: str) -> tuple[str, str]:
    """Return the texts between which the keys of one database lie, if keys are compared as bytes."""
    return f"{database}{KEY_SEPARATOR}", f"{database}{chr(ord(KEY_SEPARATOR) + 1)}"


def join_key(database: str, id: str) -> str:
    """Return the key of a document's rows, unique among all databases of a pillow."""
    return f"{database}{KEY_SEPARATOR}{id}"


def split_key(key: str) -> tuple[str, str]:
    """Return the database and the document's id of a key."""
    database, _, id = key.partition(KEY_SEPARATOR)
    return database, id


def revision_number(rev: str) -> int:
    """Return the number of a revision: 12 of `"12-abc"` (CouchDB docs, "Document revisions")."""
    return int(rev.partition("-")[0])


def write_version(epoch: int, leaf_version: int) -> int:
    """Return the version that a keyed target stores to reject older states: the epoch, then the leaf version.

    Raises:
        PermanentError: the leaf version would flow into the epoch.
    """
    if leaf_version > MAX_LEAF_VERSION:
        raise too_high(leaf_version)
    return epoch << VERSION_BITS | leaf_version


def too_high(leaf_version: int) -> PermanentError:
    """Return the error for a document whose revision numbers add up to more than `MAX_LEAF_VERSION`.

    No edits come there; a revision that was written with `new_edits=false` may have any number.
    """
    return PermanentError(
        f"The numbers of its revisions add up to {leaf_version}, more than 2^{VERSION_BITS} - 1."
    )


def epoch_of(write_version: int) -> int:
    """Return the epoch of a write version."""
    return write_version >> VERSION_BITS


def leaf_version_of(write_version: int) -> int:
    """Return the leaf version of a write version."""
    return write_version & ((1 << VERSION_BITS) - 1)


class Change(msgspec.Struct, gc=False):
    """One row of `_changes`, read with `style=all_docs`.

    Attributes:
        id: the document's id.
        revs: all leaf revisions, the winner first, deleted ones included.
        leaf_version: the sum of the revision numbers of all leaves. It grows with every change of state,
            where the winner's number does not (266 of 266 random changes against 118).
        deleted: whether the winner is a deletion.
        seq: the row's position, where the server gave one (`seq_interval`).
        raw: the winner's JSON, where the feed brought it along.
        parsed: the parsed document, once `doc` was read.
        defect: why the document can never be read; it becomes a dead letter.

    It is not frozen, unlike the other values: it caches the parsed document, so that filter and transform
    parse it once.
    """

    id: str
    revs: tuple[str, ...]
    leaf_version: int
    deleted: bool = False
    seq: Seq | None = None
    raw: msgspec.Raw | None = None
    parsed: dict[str, Any] | None = None
    defect: str = ""

    @property
    def doc(self) -> dict[str, Any]:
        """The parsed document; empty if it is deleted.

        Raises:
            PermanentError: it did not come with its change. An empty one might look as if it left the set.
        """
        if self.parsed is None:
            if self.raw is None and not self.deleted:
                raise PermanentError("The document was read, but it did not come with its change.")
            self.parsed = msgspec.json.decode(self.raw) if self.raw is not None else {}
        return self.parsed

    @property
    def rev(self) -> str:
        """The winning revision."""
        return self.revs[0]


class ChangeBatch(Struct, frozen=True, kw_only=True):
    """Some changes in feed order, cut where the feed has a position.

    Attributes:
        changes: the changes; may be empty (an idle feed advances, too).
        seq: the position after the last change; None if the feed gave none there.
        size_bytes: their size in the response.
        caught_up: whether the feed had nothing more when this was read.
        pending: the server's number of changes after this batch; None if it gave none.
        asked_at: when the request was sent (monotonic seconds), if its complete response showed that the feed
            had nothing more; otherwise None.
        purge_seq: the source's purge position, if these changes are deletions of purged documents.
        recreated: whether some of the purged documents exist again, or may: then a row of an equal version
            may be another document's.
        purges_missed: how many purges there were since the last purge position, if the source no longer lists
            all of them; else 0.
        more_follow: whether the next changes are on their way, since a page is read that goes on.
        least_epoch: the epoch under which they are written, at least: the tail's is raised to it before.
    """

    changes: Sequence[Change]
    seq: Seq | None
    size_bytes: int = 0
    caught_up: bool = False
    pending: int | None = None
    asked_at: float | None = None
    purge_seq: str | None = None
    recreated: bool = True
    purges_missed: int = 0
    more_follow: bool = False
    least_epoch: int = 0

    @property
    def is_sign_of_life(self) -> bool:
        """Whether it says only that the feed is alive. Purges, and an epoch, may come without a position."""
        return not self.changes and self.seq is None and self.purge_seq is None and not self.least_epoch


class Document(msgspec.Struct, gc=False):
    """The result of the trigger: the winning document, or its deletion.

    Attributes:
        id, rev, leaf_version, deleted: as in the `Change`.
        raw: the document's JSON as CouchDB sent it; None if it is deleted.
        parsed: the parsed document, once `doc` was read.
    """

    id: str
    rev: str
    leaf_version: int
    deleted: bool
    raw: msgspec.Raw | None
    parsed: dict[str, Any] | None = None

    @property
    def doc(self) -> dict[str, Any]:
        """The parsed document; a pass-through pillow never asks for it."""
        if self.parsed is None:
            self.parsed = msgspec.json.decode(self.raw) if self.raw is not None else {}
        return self.parsed


class DocumentRows(msgspec.Struct, frozen=True, gc=False):
    """All rows of one document, in every output of a pillow.

    A document owns its rows: an output that is missing in `rows` must have no row of this document. So a
    deletion, leaving the set, `None` from a transform and routing to another output are all the same.

    Attributes:
        id: the document's id.
        rev: its winning revision.
        leaf_version: the sum of the revision numbers of its leaves; stored with the epoch
            as a `write_version`.
        rows: output name -> its complete rows there. Empty: the document has no row in any output.
        size_bytes: its approximate size, for bounds in bytes.
    """

    id: str
    rev: str
    leaf_version: int
    rows: Mapping[str, Sequence[Row]]
    size_bytes: int = 0

    @property
    def has_rows(self) -> bool:
        """Whether it has a row in any output of its pillow."""
        return any(self.rows.values())


def newest(documents: Sequence[DocumentRows]) -> list[DocumentRows]:
    """Return one entry per id: the one with the highest version, the last of equal ones."""
    chosen: dict[str, DocumentRows] = {}
    for document in documents:
        if (known := chosen.get(document.id)) is None or document.leaf_version >= known.leaf_version:
            chosen[document.id] = document
    return list(chosen.values())


class Batch(Struct, frozen=True, kw_only=True):
    """Documents that are written together: at most one entry per document id.

    Attributes:
        documents: the documents' complete rows.
        epoch: the epoch to store them under.
        first_pass: this is the first pass into outputs that were empty when it began, so a document
            without rows needs no tombstone unless it removes something.
        checkpoint: the checkpoint after this batch; a transactional transport saves it in the same
            transaction. None if the batch does not move the checkpoint.
        checkpoints: the same for each tail, in a batch of several databases; see `Transport.share`.
    """

    documents: Sequence[DocumentRows]
    epoch: int
    first_pass: bool = False
    checkpoint: Checkpoint | None = None
    checkpoints: Mapping[TailKey, Checkpoint] = field(default_factory=dict)

    def only(self, ids: Container[str]) -> Batch:
        """Return the batch with only these documents, without its checkpoint, which is for all of them."""
        return Batch(
            documents=[d for d in self.documents if d.id in ids],
            epoch=self.epoch,
            first_pass=self.first_pass,
        )

    def checkpoints_without(self, keys: Iterable[str]) -> Mapping[TailKey, Checkpoint]:
        """Return the checkpoints of the databases that none of these documents belongs to.

        Args:
            keys: of documents that were not applied.
        """
        held = {split_key(key)[0] for key in keys}
        return {tail: each for tail, each in self.checkpoints.items() if tail.database not in held}


class WriteResult(Struct, frozen=True, kw_only=True):
    """A transport's answer for a batch. A document that is in none of the three was applied.

    Attributes:
        refused: id -> the write version that the target stores, which is not older than ours.
        dead: id -> why it can never be written.
        retry: id -> why it was not written this time.
    """

    refused: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, str] = field(default_factory=dict)
    retry: Mapping[str, str] = field(default_factory=dict)


class TransportResult(Struct, frozen=True, kw_only=True):
    """The outcome of a batch in one transport, when every document is settled.

    Attributes:
        refused: id -> the stored write version, for documents that the target has in this or a newer state.
        dead: id -> why it can never be written there.
        committed: the checkpoint that a transactional target saved with the rows; None if it saved none.
    """

    refused: Mapping[str, int]
    dead: Mapping[str, str]
    committed: Checkpoint | None = None
