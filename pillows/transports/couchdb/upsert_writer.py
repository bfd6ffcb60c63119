"""Keeps the documents of a CouchDB database equal to rows: ordinary edits, guarded by a field.

Each document holds its write version in `pillowd_version`, and so does the tombstone of a deleted one.
The stored documents are read first; the write names the revision that was read, so if somebody else was
faster it is a conflict, and the document is read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from pillows.errors import PermanentError, RetryableError
from pillows.models import DocumentRows, Row, WriteResult, write_version
from pillows.transports.common.columns import encode
from pillows.transports.couchdb.target import GROUP_DOCUMENTS, TargetDatabase, TargetLeaf

#: A document and its rows in this output.
Item = tuple[DocumentRows, Sequence[Row]]


class UpsertWriter:
    """Upserts into one database."""

    def __init__(self, target: TargetDatabase) -> None:
        self._target = target

    def write(self, items: Sequence[Item], epoch: int, *, first_pass: bool) -> WriteResult:
        """Write documents; a document in none of the result's parts was applied or left alone.

        Raises:
            RetryableError: nothing is known of some of them.
        """
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        retry: dict[str, str] = {}
        for start in range(0, len(items), GROUP_DOCUMENTS):
            group = items[start : start + GROUP_DOCUMENTS]
            known = self._target.get_leaves([document.id for document, _ in group])
            bodies: dict[str, list[bytes]] = {}
            for document, rows in group:
                leaves = known.get(document.id, [])
                ours, stored = write_version(epoch, document.leaf_version), _get_stored_version(leaves)
                if stored is not None and stored >= ours:
                    refused[document.id] = stored
                elif rows or leaves or not first_pass:
                    try:
                        bodies[document.id] = list(make_edits(document, rows, ours, leaves))
                    except PermanentError as error:
                        dead[document.id] = str(error)
            sent = self._target.send(bodies)
            dead |= sent.dead
            retry |= sent.retry
        return WriteResult(refused=refused, dead=dead, retry=retry)

    def sweep(self, epoch: int, kept: Collection[str]) -> int:
        """Delete the documents of a lower epoch, except `kept`; return their number."""
        floor = write_version(epoch, 0)
        swept = 0
        for page in self._target.read_pages():
            old = [leaf.id for leaf in page if _is_below(leaf, floor) and leaf.id not in kept]
            self._delete(self._target.get_leaves(old), floor)
            swept += len(old)
        return swept

    def _delete(self, known: Mapping[str, Sequence[TargetLeaf]], version: int) -> None:
        sent = self._target.send({id: list(_make_deletions(id, version, its)) for id, its in known.items()})
        if failed := {**sent.dead, **sent.retry}:
            raise RetryableError(f"{len(failed)} documents could not be swept: {failed}.")


def make_edits(
    document: DocumentRows, rows: Sequence[Row], ours: int, leaves: Sequence[TargetLeaf]
) -> Iterator[bytes]:
    """Yield the JSON of each revision to write for a document.

    Args:
        document: the document.
        rows: its row, or none.
        ours: the write version to store.
        leaves: its leaves in the database, the winner first.

    Raises:
        PermanentError: its rows cannot be a document.
    """
    if len(rows) > 1:
        raise PermanentError(f"A CouchDB output takes one row per document, not {len(rows)}.")
    if not rows:
        yield from _make_deletions(document.id, ours, leaves)
        return
    text = encode(rows[0])
    try:
        # The values stay the bytes that they are: numbers, for one, keep their digits.
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise PermanentError(f"The row is not a JSON object: {error}.") from error
    # Names that begin with `_` are CouchDB's own; attachments are stubs here, without their bytes.
    own = {name: value for name, value in fields.items() if not name.startswith("_")}
    yield encode(own | {"_id": document.id, **_name_parent(leaves), "pillowd_version": ours})


def _make_deletions(id: str, ours: int, leaves: Sequence[TargetLeaf]) -> Iterator[bytes]:
    """Yield a deletion of every live leaf, otherwise the loser of a conflict would win."""
    yield encode({"_id": id, **_name_parent(leaves), "_deleted": True, "pillowd_version": ours})
    for leaf in leaves[1:]:
        if not leaf.deleted:
            yield encode({"_id": id, "_rev": leaf.rev, "_deleted": True, "pillowd_version": ours})


def _name_parent(leaves: Sequence[TargetLeaf]) -> dict[str, str]:
    return {"_rev": leaves[0].rev} if leaves else {}


def _get_stored_version(leaves: Sequence[TargetLeaf]) -> int | None:
    """Return the winner's write version; None if there is none, or it is somebody else's document."""
    found = leaves[0].write_version if leaves else None
    return found if isinstance(found, int) else None


def _is_below(leaf: TargetLeaf, floor: int) -> bool:
    return isinstance(leaf.write_version, int) and leaf.write_version < floor
