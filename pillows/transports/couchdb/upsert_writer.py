"""Keeps the documents of a CouchDB database equal to rows: ordinary edits, guarded by a field.

Each document carries its write version in `pillowd_version`, a deleted one in its tombstone, where CouchDB
keeps it. What is there is read first; the write names the revision that was read, so when somebody
else was faster it is a conflict, and the document is looked at again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from pillows.errors import PermanentError, RetryableError
from pillows.models import DocumentRows, Row, WriteResult, write_version
from pillows.transports.common.columns import encode
from pillows.transports.couchdb.target import GROUP_DOCUMENTS, Leaf, TargetDatabase

#: A document and its rows in this output.
Item = tuple[DocumentRows, Sequence[Row]]


class Upserts:
    """Upserts into one database."""

    def __init__(self, target: TargetDatabase) -> None:
        self._target = target

    def write(self, items: Sequence[Item], epoch: int, *, first_pass: bool) -> WriteResult:
        """Writes documents; a document in none of the result's parts was applied or left alone.

        Raises:
            RetryableError: nothing is known of some of them.
        """
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        retry: dict[str, str] = {}
        for start in range(0, len(items), GROUP_DOCUMENTS):
            group = items[start : start + GROUP_DOCUMENTS]
            known = self._target.leaves([document.id for document, _ in group])
            bodies: dict[str, list[bytes]] = {}
            for document, rows in group:
                leaves = known.get(document.id, [])
                ours, stored = write_version(epoch, document.leaf_version), _stored(leaves)
                if stored is not None and stored >= ours:
                    refused[document.id] = stored
                elif rows or leaves or not first_pass:
                    try:
                        bodies[document.id] = list(edits(document, rows, ours, leaves))
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
        for page in self._target.pages():
            lower = [
                leaf for leaf in page if isinstance(leaf.write_version, int) and leaf.write_version < floor
            ]
            old = [leaf for leaf in lower if leaf.id not in kept]
            leaves = self._target.leaves([leaf.id for leaf in old]) if old else {}
            sent = self._target.send({id: list(_deletions(id, floor, its)) for id, its in leaves.items()})
            if troubled := {**sent.dead, **sent.retry}:
                raise RetryableError(f"{len(troubled)} documents could not be swept: {troubled}.")
            swept += len(old)
        return swept


def _stored(leaves: Sequence[Leaf]) -> int | None:
    """The write version in the winner; None where there is none, or somebody else's document."""
    found = leaves[0].write_version if leaves else None
    return found if isinstance(found, int) else None


def edits(document: DocumentRows, rows: Sequence[Row], ours: int, leaves: Sequence[Leaf]) -> Iterator[bytes]:
    """What to write for a document.

    Args:
        document: it.
        rows: its row, or none.
        ours: the write version to store.
        leaves: what the database has of it, the winner first.

    Raises:
        PermanentError: its rows are no document.
    """
    if len(rows) > 1:
        raise PermanentError(f"A CouchDB output takes one row a document, not {len(rows)}.")
    if not rows:
        yield from _deletions(document.id, ours, leaves)
        return
    row = rows[0]
    text = encode(row)
    try:
        # The values stay the bytes that they are: numbers, for one, keep their digits.
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise PermanentError(f"The row is no JSON object: {error}.") from error
    # Names that begin with `_` are CouchDB's own; attachments are stubs here, without their bytes.
    own = {name: value for name, value in fields.items() if not name.startswith("_")}
    head = {"_id": document.id, **_rev(leaves), "pillowd_version": ours}
    yield encode(own | head)


def _deletions(id: str, ours: int, leaves: Sequence[Leaf]) -> Iterator[bytes]:
    """Deletes every live leaf, for otherwise the loser of a conflict would come to light."""
    yield encode({"_id": id, **_rev(leaves), "_deleted": True, "pillowd_version": ours})
    for leaf in leaves[1:]:
        if not leaf.deleted:
            yield encode({"_id": id, "_rev": leaf.rev, "_deleted": True, "pillowd_version": ours})


def _rev(leaves: Sequence[Leaf]) -> dict[str, str]:
    return {"_rev": leaves[0].rev} if leaves else {}
