"""A database: its shards, local documents, settings, and the event of the next write."""

from __future__ import annotations

import os
import time
import zlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gevent.event import Event

from tests.servers.couchdb.journal import Journal, records
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.revisions import BODIES_KEPT, PLAIN, Tree
from tests.servers.couchdb.sequences import Tokens
from tests.servers.couchdb.shard import Shard

ADMINS_ONLY = b'{"members":{"roles":["_admin"]},"admins":{"roles":["_admin"]}}'
REVS_LIMIT = 1000
PURGED_INFOS_LIMIT = 1000
MANY_NEW_IDS = 1000


class Database:
    """One database.

    Attributes:
        name: as its creator wrote it.
        partitioned: whether ids carry a partition.
        created: seconds since 1970.
        shards: at least one.
        local: revision number and JSON text of the local documents by their ids.
        security: the JSON text of `_security`.
        revs_limit: how many revisions of a branch are remembered.
        purged: ids and revisions of the purges, the oldest first.
        deleted: whether it was deleted; open feeds look at it.
        code: compiled functions of design documents; cleared when a design document changes.
    """

    def __init__(
        self,
        name: str,
        *,
        q: int = 2,
        partitioned: bool = False,
        created: int | None = None,
        uuids: Sequence[int] | None = None,
        security: bytes = ADMINS_ONLY,
        path: Path | None = None,
    ) -> None:
        self.name = name
        self.partitioned = partitioned
        self.created = created if created is not None else int(time.time())
        self.shards = [Shard(number, uuid) for number, uuid in enumerate(uuids or [None] * q)]
        self.local: dict[str, tuple[int, bytes]] = {}
        self.security = security
        self.revs_limit = REVS_LIMIT
        self.purged_infos_limit = PURGED_INFOS_LIMIT
        self.purged: list[tuple[str, list[str]]] = []
        self.purges = 0
        self.deleted = False
        self.code: dict[str, Any] = {}
        self._changed = Event()
        self._live: list[str] | None = None
        self._spelled: tuple[list[int], str] | None = None
        is_new = path is None or not path.exists()
        self.journal = Journal(path)
        if is_new:
            self.journal.add(*self._head())
            self.journal.flush()

    @classmethod
    def load(cls, path: Path) -> Database:
        """Return the database that a file holds."""
        stored = records(path)
        _, name, partitioned, created, uuids, security = next(stored)
        database = cls(
            name, partitioned=partitioned, created=created, uuids=uuids, security=security, path=path
        )
        for kind, *rest in stored:
            getattr(database, f"_load_{kind}")(*rest)
        return database

    # Where documents are

    def shard_of(self, doc_id: str) -> Shard:
        """Return the shard that a document belongs to: by CRC32 of its id or partition, as in CouchDB."""
        name = doc_id
        if self.partitioned and not doc_id.startswith("_"):
            name = doc_id.partition(":")[0]
        code = zlib.crc32(name.encode(errors="replace"))
        return self.shards[code * len(self.shards) >> 32]

    def packed(self, doc_id: str) -> bytes | None:
        """Return a document's bytes."""
        return self.shard_of(doc_id).packed.get(doc_id)

    def tree(self, doc_id: str) -> Tree | None:
        """Return a document's revisions."""
        return self.shard_of(doc_id).tree(doc_id)

    # Writing

    def store(self, doc_id: str, tree: Tree, *, is_new: bool = True) -> None:
        """Store a document's revisions.

        Args:
            doc_id: the document.
            tree: its revisions.
            is_new: whether the feed shows it; a body for a known revision does not count.
        """
        shard = self.shard_of(doc_id)
        tree.stem(self.revs_limit)
        tree.compact(BODIES_KEPT)
        if is_new:
            packed = shard.put(doc_id, tree)
        else:
            packed = tree.pack()
            shard.rewrite(doc_id, packed)
        self.journal.add("document", shard.number, doc_id, packed)
        self._list(doc_id, live=packed[0] == PLAIN or not tree.deleted)
        if doc_id.startswith("_design/"):
            self.code.clear()

    def store_local(self, doc_id: str, number: int, body: bytes | None) -> None:
        """Store a local document, or remove it."""
        self._load_local(doc_id, number, body)
        self.journal.add("local", doc_id, number, body)

    def purge(self, doc_id: str, keys: Sequence[tuple[int, str]], revs: list[str]) -> list[str]:
        """Remove leaves of a document; return those that were there."""
        tree = self.tree(doc_id)
        gone = tree.purge(keys) if tree else []
        shard = self.shard_of(doc_id)
        if tree and gone and tree.revisions:
            live = shard.live
            self.store(doc_id, tree)
            # A purge that leaves a tombstone is not counted as a deletion, in real ones as well.
            shard.dead -= live - shard.live
            shard.live = live
        elif gone:
            self._load_removed(shard.number, doc_id, shard.seq + 1)
            self.journal.add("removed", shard.number, doc_id, shard.seq)
        else:
            shard.seq += 1
        self._load_purged(doc_id, revs)
        self.journal.add("purged", doc_id, revs)
        return [f"{generation}-{digest}" for generation, digest in gone]

    def set(self, name: str, value: Any) -> None:
        """Change a setting: `security`, `revs_limit` or `purged_infos_limit`."""
        setattr(self, name, value)
        self.journal.add("setting", name, value)
        self.commit()

    def compact(self) -> None:
        """Drop the bodies of old revisions, and old purges."""
        for shard in self.shards:
            for doc_id, packed in shard.packed.items():
                tree = Tree.unpack(packed)
                if len(tree.revisions) > 1:
                    tree.compact()
                    shard.packed[doc_id] = tree.pack()
        self.purged = self.purged[-self.purged_infos_limit :]
        self.journal.rewrite(self._everything())

    def commit(self) -> None:
        """Write the journal, and wake the feeds."""
        self.journal.flush()
        self._wake()

    def delete(self) -> None:
        """Remove the database."""
        self.deleted = True
        self.journal.delete()
        self._wake()

    # Reading

    @property
    def changed(self) -> Event:
        """Is set by the next write."""
        return self._changed

    @property
    def live(self) -> int:
        """How many documents are there."""
        return sum(shard.live for shard in self.shards)

    @property
    def dead(self) -> int:
        """How many tombstones are there."""
        return sum(shard.dead for shard in self.shards)

    def ids(self) -> list[str]:
        """Return the ids of all documents that are not deleted, in the order of their bytes."""
        if self._live is None:
            packed = (pair for shard in self.shards for pair in shard.packed.items())
            self._live = sorted(
                doc_id for doc_id, data in packed if data[0] == PLAIN or not Tree.unpack(data).deleted
            )
        return self._live

    def update_seq(self) -> str:
        """Return a token of the present state. While nothing happens, a node spells it alike."""
        positions = [shard.seq for shard in self.shards]
        if self._spelled is None or self._spelled[0] != positions:
            self._spelled = positions, Tokens(self.shards, positions).token().decode()
        return self._spelled[1]

    def info(self) -> dict[str, Any]:
        """Return the answer of `GET /{db}`."""
        size = sum(len(shard.packed) for shard in self.shards) * 1000
        purge_token = Tokens(self.shards, [self.purges, *[0] * (len(self.shards) - 1)]).token().decode()
        return {
            "instance_start_time": str(self.created),
            "db_name": self.name,
            "purge_seq": purge_token,
            "update_seq": self.update_seq(),
            "sizes": {"file": size + 16692, "external": size, "active": size},
            "props": {"partitioned": True} if self.partitioned else {},
            "doc_del_count": self.dead,
            "doc_count": self.live,
            "disk_format_version": 8,
            "compact_running": False,
            "cluster": {"q": len(self.shards), "n": 1, "w": 1, "r": 1},
        }

    def etag(self) -> str:
        """Return the ETag of a feed."""
        state = dumps([self.created, self.purges, [shard.seq for shard in self.shards]])
        return f'"{zlib.crc32(state):x}"'

    # Records

    def _head(self) -> tuple[Any, ...]:
        uuids = [shard.uuid for shard in self.shards]
        return ("database", self.name, self.partitioned, self.created, uuids, self.security)

    def _everything(self) -> Iterator[tuple[Any, ...]]:
        yield self._head()
        yield ("setting", "revs_limit", self.revs_limit)
        yield ("setting", "purged_infos_limit", self.purged_infos_limit)
        for shard in self.shards:
            for _, doc_id in shard.after(0, len(shard.packed) or 1):
                yield ("document", shard.number, doc_id, shard.packed[doc_id])
            yield ("removed", shard.number, "", shard.seq)
        for doc_id, (number, body) in self.local.items():
            yield ("local", doc_id, number, body)
        for doc_id, revs in self.purged:
            yield ("purged", doc_id, revs)
        yield ("setting", "purges", self.purges)

    def _load_document(self, shard: int, doc_id: str, packed: bytes) -> None:
        known = self.shards[shard].packed.get(doc_id)
        if known is not None and known[1:9] == packed[1:9]:
            self.shards[shard].rewrite(doc_id, packed)
        else:
            self.shards[shard].put_packed(doc_id, packed)

    def _load_removed(self, shard: int, doc_id: str, seq: int) -> None:
        self.shards[shard].remove(doc_id)
        self.shards[shard].seq = seq
        self._list(doc_id, live=False)

    def _load_local(self, doc_id: str, number: int, body: bytes | None) -> None:
        if body is None:
            self.local.pop(doc_id, None)
        else:
            self.local[doc_id] = (number, body)

    def _load_purged(self, doc_id: str, revs: list[str]) -> None:
        self.purges += 1
        if (doc_id, revs) not in self.purged[-PURGED_INFOS_LIMIT:]:
            self.purged.append((doc_id, revs))

    def _load_setting(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def _list(self, doc_id: str, *, live: bool) -> None:
        """Keep the list of live ids right, where there is one."""
        if self._live is None:
            return
        place = bisect_left(self._live, doc_id)
        there = place < len(self._live) and self._live[place] == doc_id
        if live and not there:
            insort(self._live, doc_id)
        elif there and not live:
            del self._live[place]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = Event()


def new_uuid() -> str:
    """Return an id for a document that has none."""
    return os.urandom(16).hex()
