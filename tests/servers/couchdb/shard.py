"""One shard of a database: packed documents by their ids, and the ids by sequence."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right, insort

from tests.servers.couchdb.revisions import PLAIN, PLAIN_DELETED, Tree, seq_of

ENOUGH_HOLES = 1000


class Shard:
    """The documents whose ids fall into one range of hashes.

    Every write gives its document the next sequence. The former place becomes a hole, and holes are closed
    when they are many.

    Attributes:
        number: which shard of its database it is.
        uuid: tells this shard from all others, in the tokens of feeds.
        seq: the last sequence that was given.
        live: how many documents are there.
        dead: how many tombstones are there.
        before: the documents as they were before their last write, for copies that lag.
    """

    def __init__(self, number: int, uuid: int | None = None) -> None:
        self.number = number
        self.uuid = uuid if uuid is not None else int.from_bytes(os.urandom(4), "big")
        self.seq = 0
        self.live = 0
        self.dead = 0
        self.packed: dict[str, bytes] = {}
        self.before: dict[str, bytes] = {}
        self._seqs = array("Q")
        self._ids: list[str | None] = []
        self._holes: list[int] = []

    def tree(self, doc_id: str) -> Tree | None:
        """Return a document's revisions."""
        packed = self.packed.get(doc_id)
        return None if packed is None else Tree.unpack(packed)

    def put(self, doc_id: str, tree: Tree) -> bytes:
        """Store a document under the next sequence; return its bytes."""
        tree.seq = self.seq + 1
        packed = tree.pack()
        self.put_packed(doc_id, packed)
        return packed

    def put_packed(self, doc_id: str, packed: bytes) -> None:
        """Store a document's bytes, with the sequence that they carry."""
        self.remove(doc_id)
        self.seq = seq_of(packed)
        self.packed[doc_id] = packed
        self._seqs.append(self.seq)
        self._ids.append(doc_id)
        self._count(packed, 1)

    def rewrite(self, doc_id: str, packed: bytes) -> None:
        """Store other bytes of a document whose sequence stays."""
        self._count(self.packed[doc_id], -1)
        self.packed[doc_id] = packed
        self._count(packed, 1)

    def remove(self, doc_id: str) -> None:
        """Remove a document."""
        packed = self.packed.pop(doc_id, None)
        if packed is None:
            return
        self.before[doc_id] = packed
        self._count(packed, -1)
        place = bisect_right(self._seqs, seq_of(packed)) - 1
        self._ids[place] = None
        insort(self._holes, place)
        if len(self._holes) > max(ENOUGH_HOLES, len(self._ids) // 4):
            self._close_holes()

    def after(self, seq: int, limit: int) -> list[tuple[int, str]]:
        """Return the next documents of the feed, with their sequences."""
        rows: list[tuple[int, str]] = []
        place = bisect_right(self._seqs, seq)
        while len(rows) < limit and place < len(self._ids):
            part = slice(place, place + limit)
            found = zip(self._seqs[part], self._ids[part], strict=True)
            rows += [(number, doc_id) for number, doc_id in found if doc_id is not None]
            place += limit
        return rows[:limit]

    def backwards(self) -> list[tuple[int, str]]:
        """Return all documents, the last one first."""
        return self.after(0, len(self._ids) or 1)[::-1]

    def count_after(self, seq: int) -> int:
        """Return how many documents come after a sequence."""
        place = bisect_right(self._seqs, seq)
        holes = len(self._holes) - bisect_right(self._holes, place - 1)
        return len(self._ids) - place - holes

    def _close_holes(self) -> None:
        kept = [place for place, doc_id in enumerate(self._ids) if doc_id is not None]
        self._seqs = array("Q", [self._seqs[place] for place in kept])
        self._ids = [self._ids[place] for place in kept]
        self._holes = []

    def _count(self, packed: bytes, by: int) -> None:
        kind = packed[0]
        if kind == PLAIN_DELETED or (kind != PLAIN and Tree.unpack(packed).deleted):
            self.dead += by
        else:
            self.live += by
