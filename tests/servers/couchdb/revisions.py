"""A document's revision tree, and the bytes in which it is kept.

Almost all documents of a test have one revision: their bytes are a short head and the JSON text, from which a
row of the feed is cut without unpacking. All others are marshalled. The JSON text lacks its braces and the
members of CouchDB, so that `{"_id":...,"_rev":...` can be put before it.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

PLAIN = 1  # kinds of packed documents: one live revision; one tombstone; a tree
PLAIN_DELETED = 2
TREE = 3
HEAD = struct.Struct(">BQ")  # kind, sequence
PLAIN_HEAD = struct.Struct(">BQI16s")  # kind, sequence, generation, hash
BODIES_KEPT = 100  # of older revisions; CouchDB's automatic compaction drops them
LARGEST_PLAIN = 2**32

Key = tuple[int, str]


class Attachment(NamedTuple):
    """An attachment of one revision.

    Attributes:
        name: unique in the revision.
        content_type: as it was sent.
        digest: MD5 of `data`.
        length: of the content as it was sent.
        encoding: "gzip" where `data` is compressed, else empty.
        revpos: the generation that brought it.
        data: the content.
    """

    name: str
    content_type: str
    digest: bytes
    length: int
    encoding: str
    revpos: int
    data: bytes


@dataclass(slots=True)
class Revision:
    """One revision.

    Attributes:
        generation: the number before the hyphen.
        hash: the text after the hyphen.
        parent: the revision on which it stands, if that is known.
        body: the JSON text without braces; None where it is not known any more.
        deleted: whether it is a tombstone.
        attachments: in the order in which they are shown.
    """

    generation: int
    hash: str
    parent: Self | None = None
    body: bytes | None = None
    deleted: bool = False
    attachments: tuple[Attachment, ...] = ()

    @property
    def key(self) -> Key:
        """Generation and hash, which identify it and decide between leaves."""
        return (self.generation, self.hash)

    @property
    def rev(self) -> str:
        """The revision as text: generation, a dash and the hash."""
        return f"{self.generation}-{self.hash}"

    def path(self) -> list[Revision]:
        """Return itself and its ancestors, as far as they are known."""
        path: list[Revision] = []
        revision: Revision | None = self
        while revision is not None:
            path.append(revision)
            revision = revision.parent
        return path


@dataclass(slots=True)
class Tree:
    """All known revisions of a document.

    Attributes:
        seq: where the document stands in its shard's feed.
    """

    revisions: dict[Key, Revision] = field(default_factory=dict)
    seq: int = 0

    def leaves(self) -> list[Revision]:
        """Return the leaves, the winner first."""
        parents = {revision.parent.key for revision in self.revisions.values() if revision.parent}
        leaves = [revision for key, revision in self.revisions.items() if key not in parents]
        return sorted(leaves, key=lambda leaf: (not leaf.deleted, *leaf.key), reverse=True)

    @property
    def winner(self) -> Revision:
        """The revision that the document shows."""
        return self.leaves()[0]

    @property
    def deleted(self) -> bool:
        """Whether all leaves are tombstones."""
        return self.winner.deleted

    def merge(self, leaf: Revision, ancestors: Sequence[Key]) -> bool:
        """Add a leaf with its ancestors; return whether it is new.

        Args:
            leaf: the revision.
            ancestors: those below it, the nearest first.
        """
        known = self.revisions.get(leaf.key)
        is_new = known is None
        if known is None:
            known = self.revisions[leaf.key] = leaf
        elif known.body is None:
            known.body, known.deleted, known.attachments = leaf.body, leaf.deleted, leaf.attachments
        for key in ancestors:
            if known.parent is not None:
                break
            parent = self.revisions.get(key) or Revision(*key)
            self.revisions[key] = known.parent = parent
            known = parent
        return is_new

    def stem(self, limit: int) -> None:
        """Drop ancestors that are further than the limit from every leaf."""
        if len(self.revisions) <= limit:
            return
        kept: dict[Key, Revision] = {}
        for leaf in self.leaves():
            kept.update({revision.key: revision for revision in leaf.path()[:limit]})
        for revision in kept.values():
            if revision.parent is not None and revision.parent.key not in kept:
                revision.parent = None
        self.revisions = {key: revision for key, revision in self.revisions.items() if key in kept}

    def compact(self, kept: int = 0) -> None:
        """Drop the bodies of all revisions but the leaves and some of the youngest."""
        leaves = {leaf.key for leaf in self.leaves()}
        inner = sorted(
            key for key, one in self.revisions.items() if key not in leaves and one.body is not None
        )
        for key in inner[: len(inner) - kept]:
            self.revisions[key].body = None
            self.revisions[key].attachments = ()

    def purge(self, keys: Iterable[Key]) -> list[Key]:
        """Remove leaves with the ancestors that no other leaf has; return those that were leaves."""
        leaves = {leaf.key: leaf for leaf in self.leaves()}
        purged = [key for key in keys if key in leaves]
        kept: set[Key] = set()
        for key, leaf in leaves.items():
            if key not in purged:
                kept.update(revision.key for revision in leaf.path())
        self.revisions = {key: revision for key, revision in self.revisions.items() if key in kept}
        return purged

    def under(self, key: Key) -> list[Revision]:
        """Return the leaves that stand on a revision, or are it."""
        return [leaf for leaf in self.leaves() if any(revision.key == key for revision in leaf.path())]

    def pack(self) -> bytes:
        """Return the bytes in which the document is kept."""
        revisions = list(self.revisions.values())
        if len(revisions) > 1:
            return HEAD.pack(TREE, self.seq) + marshal.dumps(_rows(revisions))
        only = revisions[0]
        digits = _digits(only.hash)
        if only.body is None or only.attachments or digits is None or only.generation >= LARGEST_PLAIN:
            return HEAD.pack(TREE, self.seq) + marshal.dumps(_rows(revisions))
        kind = PLAIN_DELETED if only.deleted else PLAIN
        return PLAIN_HEAD.pack(kind, self.seq, only.generation, digits) + only.body

    @classmethod
    def unpack(cls, packed: bytes) -> Tree:
        """Return the tree that bytes stand for."""
        kind, seq = HEAD.unpack_from(packed)
        if kind != TREE:
            _, _, generation, digits = PLAIN_HEAD.unpack_from(packed)
            only = Revision(generation, digits.hex(), None, packed[PLAIN_HEAD.size :], kind == PLAIN_DELETED)
            return cls({only.key: only}, seq)
        revisions: list[Revision] = []
        rows = marshal.loads(packed[HEAD.size :])
        for generation, digest, _, body, deleted, attachments in rows:
            files = tuple(Attachment(*one) for one in attachments)
            revisions.append(Revision(generation, digest, None, body, deleted, files))
        for revision, row in zip(revisions, rows, strict=True):
            revision.parent = revisions[row[2]] if row[2] >= 0 else None
        return cls({revision.key: revision for revision in revisions}, seq)


def _rows(revisions: list[Revision]) -> list[tuple[object, ...]]:
    places = {revision.key: place for place, revision in enumerate(revisions)}
    return [
        (
            one.generation,
            one.hash,
            places[one.parent.key] if one.parent else -1,
            one.body,
            one.deleted,
            [tuple(file) for file in one.attachments],
        )
        for one in revisions
    ]


def _digits(text: str) -> bytes | None:
    try:
        digits = bytes.fromhex(text)
    except ValueError:
        return None
    return digits if len(digits) == 16 and digits.hex() == text else None


def seq_of(packed: bytes) -> int:
    """Return the sequence of a packed document."""
    return int(HEAD.unpack_from(packed)[1])


def parse_rev(text: object) -> Key | None:
    """Return the key of a revision's name, or None where it is none."""
    if not isinstance(text, str):
        return None
    number, hyphen, digest = text.partition("-")
    if not hyphen or not digest or not (number.isascii() and number.isdigit()):
        return None
    return (int(number), digest)
