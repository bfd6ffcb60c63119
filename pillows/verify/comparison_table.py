"""What source and targets hold, side by side on disk, so that memory is bounded for any size.

Source and targets each give their documents in an order of their own (collations differ, Elasticsearch
has none, a cluster's feed neither). Here ids are the keys of SQLite tables as bytes, so both sides are
in byte order, and the comparison is a merge. The file is temporary: it needs no durability.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from pillows.models import VERSION_BITS
from pillows.transports.base import Stored

#: Of SQLite's cache, in KiB.
_CACHE_KIB = 16_384

_SCHEMA = """
pragma journal_mode = off;
pragma synchronous = off;
pragma cache_size = -{cache};
create table source (id blob primary key, rev text, version integer, outputs integer,
    dead integer default 0) without rowid;
create table stored (target integer, id blob, rev text, version integer, primary key (target, id))
    without rowid;
create table touched (id blob primary key) without rowid;
create table doubted (id blob primary key) without rowid;
create table open (target integer, id blob, kind text, primary key (target, id)) without rowid;
-- What the source never told of. Without the design documents of a replica (it has revisions alone, no
-- versions), which may be its own: a pass spares them, too.
create view unknown as
select t.target, t.id from stored t left join source s on s.id = t.id
where s.id is null
and not (t.version is null and t.rev is not null and substr(t.id, 1, 8) = cast('_design/' as blob));
"""

# `outputs` has a bit for each output with rows; NULL where nobody can say what should be there.
_OPEN = """
insert into open
select :target, s.id, case when t.id is null then 'missing' else 'stale' end
from source s left join stored t on t.target = :target and t.id = s.id
where not s.dead and s.outputs & :bit and (
    t.id is null
    or (t.version is not null and t.version != s.version)
    or (t.rev is not null and t.rev != s.rev)
)
union all
select target, id, 'phantom' from unknown where target = :target and not :outlive
union all
select :target, t.id, 'phantom' from stored t join source s on s.id = t.id
where t.target = :target and not s.dead and s.outputs & :bit = 0
"""

_KEPT = """
select (select count(*) from unknown where target = :target) + (select count(*)
from stored t join source s on s.id = t.id where t.target = :target and not s.dead and s.outputs is null)
"""


class Scratch:
    """The two sides; a context manager.

    Args:
        folder: where the temporary file is made; the system's own place unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pillowd-verify-", dir=folder)
        self._db = sqlite3.connect(
            Path(self._folder.name) / "scratch", isolation_level=None, check_same_thread=False
        )
        self._db.executescript(_SCHEMA.format(cache=_CACHE_KIB))

    def __enter__(self) -> Scratch:
        """The open scratch."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes it."""
        self._db.close()
        self._folder.cleanup()

    def put_source(self, documents: Iterable[tuple[str, str, int, int | None]]) -> None:
        """Takes documents of the source: id, revision, version, bits of the outputs with rows."""
        rows = [(id.encode(), rev, version, outputs) for id, rev, version, outputs in documents]
        self._many("replace into source (id, rev, version, outputs) values (?, ?, ?, ?)", rows)

    def put_stored(self, target: int, documents: Iterable[Stored]) -> None:
        """Takes what a target holds. Epochs are left out: they say nothing of the document's state."""
        mask = (1 << VERSION_BITS) - 1
        rows = [
            (target, d.id.encode(), d.rev, None if d.write_version is None else d.write_version & mask)
            for d in documents
        ]
        self._many("replace into stored values (?, ?, ?, ?)", rows)

    def forget_stored(self, target: int, ids: Sequence[str]) -> None:
        """Forgets what a target held of documents that are to be looked at again."""
        self._many("delete from stored where target = ? and id = ?", [(target, id.encode()) for id in ids])

    def touch(self, ids: Iterable[str]) -> None:
        """Takes note of documents that are on their way: what differs in them is no difference yet."""
        self._many("insert or ignore into touched values (?)", [(id.encode(),) for id in ids])

    def untouch(self) -> None:
        """Nothing is on its way."""
        self._db.execute("delete from touched")

    def doubt(self) -> None:
        """What differs now is what is to be settled."""
        self._db.execute("delete from doubted")
        self._db.execute("insert into doubted select distinct id from open")

    def compare(self, targets: Sequence[int], *, outlive: bool = False) -> None:
        """Finds what differs.

        Args:
            targets: for each target, which bit of `outputs` is its.
            outlive: rows may outlive their documents, so what the source does not know is no phantom.
        """
        self._db.execute("delete from open")
        for target, bit in enumerate(targets):
            self._db.execute(_OPEN, {"target": target, "bit": 1 << bit, "outlive": outlive})

    def kept(self, target: int) -> int:
        """How many documents of a target have rows there that outlived them in the source."""
        return int(self._db.execute(_KEPT, {"target": target}).fetchone()[0])

    def leave_out(self, ids: Iterable[str]) -> None:
        """Takes documents out of the comparison."""
        self._many("update source set dead = 1 where id = ?", [(id.encode(),) for id in ids])

    def suspects(self, target: int, after: str | None, limit: int) -> list[str]:
        """Ids that differ in a target, in byte order, behind `after`."""
        query = "select id from open where target = ? and id > ? order by id limit ?"
        found = self._db.execute(query, (target, (after or "").encode(), limit))
        return [id.decode() for (id,) in found]

    def on_their_way(self) -> int:
        """How many of those that are to be settled differ still and are on their way."""
        query = (
            "select count(*) from open where id in (select id from touched)"
            " and id in (select id from doubted)"
        )
        return int(self._db.execute(query).fetchone()[0])

    def counts(self, target: int) -> dict[str, int]:
        """How many documents differ in a target, by kind, those on their way left out."""
        query = (
            "select kind, count(*) from open where target = ? and id not in (select id from touched)"
            " group by kind"
        )
        return dict(self._db.execute(query, (target,)).fetchall())

    def examples(self, target: int, kind: str, limit: int) -> list[str]:
        """Some of them."""
        query = (
            "select id from open where target = ? and kind = ? and id not in (select id from touched)"
            " order by id limit ?"
        )
        return [id.decode() for (id,) in self._db.execute(query, (target, kind, limit))]

    def differing(self, after: str | None, limit: int) -> list[str]:
        """Ids that differ in any target, in byte order, those on their way left out."""
        query = (
            "select distinct id from open where id > ? and id not in (select id from touched)"
            " order by id limit ?"
        )
        return [id.decode() for (id,) in self._db.execute(query, ((after or "").encode(), limit))]

    def size(self, table: str, target: int | None = None) -> int:
        """How many documents there are in the source, or in a target."""
        if table == "source":
            query, values = "select count(*) from source where dead or outputs is null or outputs != 0", ()
            return int(self._db.execute(query, values).fetchone()[0])
        query = "select count(*) from stored where target = ?"
        return int(self._db.execute(query, (target,)).fetchone()[0])

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._db.execute("begin")
        self._db.executemany(statement, rows)
        self._db.execute("commit")
