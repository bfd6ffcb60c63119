"""Write over tombstones, which CouchDB does not let us edit.

A deleted document that returns is written without a revision; CouchDB then extends the tombstone. A tombstone
that needs a higher write version is extended as a replicator would store it. If another writer was faster,
neither write reports a conflict, so such documents are read again afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pillows import strict_json
from pillows.couch.bulk_get import bulk_get
from pillows.models import revision_number
from pillows.transports.couchdb.target import (
    TargetDatabase,
    TargetLeaf,
    get_stored_version,
    parse_target_leaf,
)

_OVERTAKEN = "conflict: another writer was faster."
_MAX_ANSWER_BYTES = 2**30


class WrittenOver(NamedTuple):
    """A write over a tombstone.

    Attributes:
        tombstone: the winner before the write.
        ours: the write version that was written.
    """

    tombstone: TargetLeaf
    ours: int


class _Revisions(msgspec.Struct):
    start: int
    ids: list[str]


class _History(msgspec.Struct):
    revisions: _Revisions = msgspec.field(name="_revisions")


def make_deletion(leaf: TargetLeaf, ours: int) -> bytes:
    """Return the deletion of a live leaf."""
    return strict_json.encode({"_id": leaf.id, "_rev": leaf.rev, "_deleted": True, "pillowd_version": ours})


def make_next_tombstone(tombstone: TargetLeaf, ours: int) -> bytes:
    """Return a tombstone that extends another one; its revision is the same for every writer."""
    parent = tombstone.rev.partition("-")[2]
    digest = hashlib.md5(f"{parent} {ours}".encode(), usedforsecurity=False).hexdigest()
    start = revision_number(tombstone.rev) + 1
    revisions = {"start": start, "ids": [digest, parent]}
    head = {"_id": tombstone.id, "_rev": f"{start}-{digest}", "_revisions": revisions}
    return strict_json.encode(head | {"_deleted": True, "pillowd_version": ours})


def find_overtaken(target: TargetDatabase, written: Mapping[str, WrittenOver]) -> dict[str, str]:
    """Return the documents that must be written again, with the reason.

    A document that was revived over a tombstone newer than itself is deleted again.

    Args:
        target: the database.
        written: id -> its write.

    Raises:
        RetryableError: the server cannot read one of them now.
    """
    overtaken: dict[str, str] = {}
    found = target.get_leaves(list(written))
    for id, (tombstone, ours) in written.items():
        leaves = found.get(id, [])
        stored = get_stored_version(leaves)
        if stored is None or stored < ours:
            overtaken[id] = _OVERTAKEN
        elif stored == ours and not leaves[0].deleted and _distance(tombstone, leaves[0]) > 1:
            _yield_to_parent(target, leaves[0], ours)
    return overtaken


def _distance(tombstone: TargetLeaf, leaf: TargetLeaf) -> int:
    return revision_number(leaf.rev) - revision_number(tombstone.rev)


def _yield_to_parent(target: TargetDatabase, leaf: TargetLeaf, ours: int) -> None:
    stored = get_stored_version(_read_parent(target, leaf))
    if stored is not None and stored > ours:
        target.send({leaf.id: [make_deletion(leaf, stored)]})


def _read_parent(target: TargetDatabase, leaf: TargetLeaf) -> list[TargetLeaf]:
    """Return the parent revision of a leaf; none if the database has compacted it away."""
    found = _read_revision(target, leaf.id, leaf.rev)
    revisions = msgspec.json.decode(found[0], type=_History).revisions if found else _Revisions(0, [])
    parents = [f"{revisions.start - 1}-{digest}" for digest in revisions.ids[1:2]]
    return [parse_target_leaf(raw) for rev in parents for raw in _read_revision(target, leaf.id, rev)]


def _read_revision(target: TargetDatabase, id: str, rev: str) -> list[msgspec.Raw]:
    docs = [{"id": id, "rev": rev}]
    results = bulk_get(target.couch, target.database, docs, query="?revs=true", max_bytes=_MAX_ANSWER_BYTES)
    return [one.ok for result in results for one in result.docs if isinstance(one.ok, msgspec.Raw)]
