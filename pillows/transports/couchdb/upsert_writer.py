"""Keep the documents of a CouchDB database equal to rows: ordinary edits, guarded by a field.

Each document, and the tombstone of a deleted one, holds its write version in `pillowd_version`. The stored
documents are read first. The write names the revision that was read, so a faster writer causes a conflict,
and the document is read again. `tombstones` describes deleted documents.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from pillows import strict_json
from pillows.errors import PermanentError, RetryableError
from pillows.models import DocumentRows, Row, WriteResult, leaf_version_of, write_version
from pillows.strict_json import run_deeply
from pillows.transports.common.same_json import is_same_value
from pillows.transports.couchdb.target import (
    GROUP_DOCUMENTS,
    TargetDatabase,
    TargetLeaf,
    get_stored_version,
)
from pillows.transports.couchdb.tombstones import (
    WrittenOver,
    find_overtaken,
    make_deletion,
    make_next_tombstone,
)


def _read_double(text: str) -> float:
    """Return a number with a fraction as CouchDB 3.5 stores it: a double, and 0 for the least of them."""
    double = float(text)
    return 0.0 if abs(double) < sys.float_info.min else double


_decode_stored = msgspec.json.Decoder(float_hook=_read_double).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

#: A document and its rows in this output.
Item = tuple[DocumentRows, Sequence[Row]]


class UpsertWriter:
    """Upserts into one database."""

    def __init__(self, target: TargetDatabase) -> None:
        self._target = target

    def write(self, items: Sequence[Item], epoch: int, *, first_pass: bool) -> WriteResult:
        """Write documents. A document that is missing in the result was applied, or needed no change.

        Raises:
            RetryableError: nothing is known of some of them.
        """
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        retry: dict[str, str] = {}
        for start in range(0, len(items), GROUP_DOCUMENTS):
            written = self._write_group(items[start : start + GROUP_DOCUMENTS], epoch, first_pass=first_pass)
            refused |= written.refused
            dead |= written.dead
            retry |= written.retry
        return WriteResult(refused=refused, dead=dead, retry=retry)

    def _write_group(self, items: Sequence[Item], epoch: int, *, first_pass: bool) -> WriteResult:
        known = self._target.get_leaves([document.id for document, _ in items])
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        edits: dict[str, list[bytes]] = {}
        tombstones: dict[str, list[bytes]] = {}
        written_over: dict[str, WrittenOver] = {}
        for document, rows in items:
            leaves = known.get(document.id, [])
            try:
                ours = write_version(epoch, document.leaf_version)
            except PermanentError as error:
                dead[document.id] = str(error)
                continue
            stored = get_stored_version(leaves)
            if stored is not None and stored >= ours:
                refused[document.id] = stored
                continue
            if leaves and leaves[0].deleted:
                written_over[document.id] = WrittenOver(leaves[0], ours)
            if document.id in written_over and not rows:
                tombstones[document.id] = [make_next_tombstone(leaves[0], ours)]
            elif rows or leaves or not first_pass:
                try:
                    edits[document.id] = list(make_edits(document, rows, ours, leaves))
                except PermanentError as error:
                    dead[document.id] = str(error)
        edited, extended = self._target.send(edits), self._target.send(tombstones, new_edits=False)
        dead |= {**edited.dead, **extended.dead}
        retry = {**edited.retry, **extended.retry}
        done = {id: write for id, write in written_over.items() if id not in dead and id not in retry}
        return WriteResult(refused=refused, dead=dead, retry=retry | find_overtaken(self._target, done))

    def find_altered(self, items: Sequence[Item]) -> set[str]:
        """Return the ids of documents that the database holds in the same leaf version, with other fields."""
        altered = set[str]()
        for start in range(0, len(items), GROUP_DOCUMENTS):
            group = items[start : start + GROUP_DOCUMENTS]
            held = self._target.get_bodies([document.id for document, _ in group])
            altered |= {document.id for document, rows in group if _is_altered(document, rows, held)}
        return altered

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
    text = strict_json.encode(rows[0])
    try:
        # The values stay the bytes that they are: numbers, for one, keep their digits.
        fields = run_deeply(lambda: msgspec.json.decode(text, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PermanentError(f"The row is not a JSON object: {error}.") from error
    # Names that begin with `_` are CouchDB's own; attachments are stubs here, without their bytes.
    own = {name: value for name, value in fields.items() if not name.startswith("_")}
    yield strict_json.encode(own | {"_id": document.id, **_name_parent(leaves), "pillowd_version": ours})


def _is_altered(document: DocumentRows, rows: Sequence[Row], held: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether the database holds a document in the same leaf version, with other fields."""
    if document.id not in held:
        return False
    fields = run_deeply(lambda: _decode_fields(held[document.id]))
    version = msgspec.json.decode(fields.pop("pillowd_version", b"null"))
    if not isinstance(version, int) or leaf_version_of(version) != document.leaf_version:
        return False
    try:
        (expected,) = make_edits(document, rows, version, ())
    except PermanentError:
        return True
    wanted = run_deeply(lambda: _decode_fields(expected))
    del wanted["pillowd_version"]
    texts = _encode_own(fields), _encode_own(wanted)
    return not is_same_value(*run_deeply(lambda: [_decode_stored(text) for text in texts]))


def _encode_own(fields: Mapping[str, msgspec.Raw]) -> bytes:
    """Return the fields that are not CouchDB's own, as JSON."""
    return msgspec.json.encode({name: value for name, value in fields.items() if not name.startswith("_")})


def _make_deletions(id: str, ours: int, leaves: Sequence[TargetLeaf]) -> Iterator[bytes]:
    """Yield a deletion of every live leaf, otherwise the loser of a conflict would win."""
    if not leaves:
        yield strict_json.encode({"_id": id, "_deleted": True, "pillowd_version": ours})
    for leaf in leaves:
        if not leaf.deleted:
            yield make_deletion(leaf, ours)


def _name_parent(leaves: Sequence[TargetLeaf]) -> dict[str, str]:
    """Return the revision that an edit extends; CouchDB refuses one that names a tombstone."""
    return {"_rev": leaves[0].rev} if leaves and not leaves[0].deleted else {}


def _is_below(leaf: TargetLeaf, floor: int) -> bool:
    return isinstance(leaf.write_version, int) and leaf.write_version < floor
