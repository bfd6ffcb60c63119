"""The documents of a database with all their leaves, known without asking it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.stores import Row, Rows

#: One write in this many is refused by the transform (POISON), or by Elasticsearch alone (STRICT, see
#: `MAPPING`), or has U+0000, which PostgreSQL stores only in an encoded form (NUL).
POISON, STRICT, NUL = 97, 89, 83

#: Makes Elasticsearch refuse a document whose `strict` is not a number.
MAPPING = {"dynamic": False, "properties": {"strict": {"type": "long"}}}


def make_body(id: str, n: int) -> dict[str, Any]:
    """Return the body of a document after write number `n`."""
    digest = hashlib.sha256(f"{id}:{n}".encode()).hexdigest()
    found: dict[str, Any] = {"n": n, "text": digest * 4, "nested": {"list": [n, None, digest[:8]]}}
    if n % POISON == 13:
        found["poison"] = True
    if n % STRICT == 7:
        found["strict"] = "no number"
    if n % NUL == 5:
        found["nul"] = "\x00\x01"
    return found


def is_bad(n: int) -> bool:
    """Return whether some target cannot store write number `n`."""
    return n % POISON == 13 or n % STRICT == 7


@dataclass(slots=True)
class Leaf:
    """A leaf revision: its hashes from the newest to the root, and the write that made it."""

    hashes: list[str]
    n: int
    deleted: bool = False

    @property
    def revision_number(self) -> int:
        return len(self.hashes)

    @property
    def rev(self) -> str:
        return f"{len(self.hashes)}-{self.hashes[0]}"

    @property
    def rank(self) -> tuple[bool, int, str]:
        """The key by which CouchDB chooses the winner."""
        return (not self.deleted, len(self.hashes), self.hashes[0])


@dataclass(slots=True)
class Document:
    """A document and its leaves."""

    id: str
    leaves: list[Leaf] = field(default_factory=list)

    @property
    def winner(self) -> Leaf:
        return max(self.leaves, key=lambda leaf: leaf.rank)

    @property
    def version(self) -> int:
        return sum(leaf.revision_number for leaf in self.leaves)

    def grow(self, parent: Leaf | None, n: int, *, deleted: bool = False) -> dict[str, Any]:
        """Add a revision to a leaf, or a new leaf (None); return the document to send."""
        hashes = [hashlib.md5(f"{self.id}:{n}".encode()).hexdigest(), *(parent.hashes if parent else [])]
        leaf = Leaf(hashes, n, deleted)
        self.leaves = [one for one in self.leaves if one is not parent] + [leaf]
        fields = {"_deleted": True} if deleted else make_body(self.id, n)
        revisions = {"start": leaf.revision_number, "ids": hashes}
        return {**fields, "_id": self.id, "_rev": leaf.rev, "_revisions": revisions}


@dataclass(slots=True)
class Truth:
    """All documents of a database.

    Attributes:
        documents: id -> the document, deleted ones included.
        purged: ids that were purged; they may have been created again.
        bad: states that some target cannot store, as id and leaf version.
        n: number of the last write.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)
    bad: set[tuple[str, int]] = field(default_factory=set)
    n: int = 0

    def grow(
        self, document: Document, parent: Leaf | None, n: int, *, deleted: bool = False
    ) -> dict[str, Any]:
        """See `Document.grow`."""
        change = document.grow(parent, n, deleted=deleted)
        if is_bad(document.winner.n) and not document.winner.deleted:
            self.bad.add((document.id, document.version))
        return change

    def next_number(self) -> int:
        self.n += 1
        return self.n

    def list_live(self) -> Iterator[Document]:
        return (document for document in self.documents.values() if not document.winner.deleted)

    def make_rows(self) -> Rows:
        """Return the rows that every target must hold."""
        return {d.id: Row(d.winner.rev, d.version, make_body(d.id, d.winner.n)) for d in self.list_live()}
