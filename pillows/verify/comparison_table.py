"""The documents of source and targets, side by side on disk, so that memory is bounded for any size.

Source and targets return documents in different orders (collations differ, Elasticsearch and a cluster's
feed have none). Here ids are the keys of SQLite tables as bytes, so both sides are in byte order, and
the comparison is a merge. The file is temporary: it needs no durability.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints.files.blocking import run_blocking
from pillows.models import VERSION_BITS
from pillows.transports.base import Stored

#: SQLite's cache, in KiB.
_CACHE_KIB = 16_384

_SCHEMA = """
pragma journal_mode = off;
pragma synchronous = off;
pragma cache_size = -{cache};
create table source (id blob primary key, rev text, version integer, outputs integer,
    dead integer default 0) without rowid;
create table stored (target integer, id blob, rev text, version integer, primary key (target, id))
    without rowid;
create table in_flight (id blob primary key) without rowid;
create table pending (id blob primary key) without rowid;
create table altered (target integer, id blob, primary key (target, id)) without rowid;
create table open (target integer, id blob, kind text, primary key (target, id)) without rowid;
-- Documents that the source does not know. Without the design documents of a replica (which has revisions
-- and no versions), which may be its own: a pass keeps them, too.
create view unknown as
select t.target, t.id from stored t left join source s on s.id = t.id
where s.id is null
and not (t.version is null and t.rev is not null and substr(t.id, 1, 8) = cast('_design/' as blob));
"""

# `outputs` has a bit for each output with rows; NULL if that is unknown.
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

_ALTERED = """
insert or ignore into open
select a.target, a.id, 'altered' from altered a join source s on s.id = a.id
where a.target = :target and not s.dead
"""

# Documents known to have rows somewhere, so that there are contents to compare.
_COMPARABLE = "not dead and (outputs is null or outputs != 0)"

_KEPT = """
select (select count(*) from unknown where target = :target) + (select count(*)
from stored t join source s on s.id = t.id where t.target = :target and not s.dead and s.outputs is null)
"""


class ComparisonTable:
    """Both sides; a context manager.

    Args:
        folder: of the temporary file; the system's own unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pillowd-verify-", dir=folder)
        self._db = sqlite3.connect(
            Path(self._folder.name) / "table", isolation_level=None, check_same_thread=False
        )
        self._db.executescript(_SCHEMA.format(cache=_CACHE_KIB))

    def __enter__(self) -> ComparisonTable:
        """Return the table."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file."""
        self._db.close()
        self._folder.cleanup()

    def put_source(self, documents: Iterable[tuple[str, str, int, int | None]]) -> None:
        """Add documents of the source: id, revision, version, bits of the outputs with rows."""
        rows = [(id.encode(), rev, version, outputs) for id, rev, version, outputs in documents]
        self._many("replace into source (id, rev, version, outputs) values (?, ?, ?, ?)", rows)

    def put_stored(self, target: int, documents: Iterable[Stored]) -> None:
        """Add documents of a target. Epochs are dropped: they are not part of the document's state."""
        mask = (1 << VERSION_BITS) - 1
        rows = [
            (target, d.id.encode(), d.rev, None if d.write_version is None else d.write_version & mask)
            for d in documents
        ]
        self._many("replace into stored values (?, ?, ?, ?)", rows)

    def forget_stored(self, target: int, ids: Sequence[str]) -> None:
        """Remove documents of a target that are read again."""
        self._many("delete from stored where target = ? and id = ?", [(target, id.encode()) for id in ids])

    def mark_in_flight(self, ids: Iterable[str]) -> None:
        """Mark documents as in flight: they are not counted as different."""
        self._many("insert or ignore into in_flight values (?)", [(id.encode(),) for id in ids])

    def clear_in_flight(self) -> None:
        """Clear all marks."""
        self._execute("delete from in_flight")

    def freeze_pending(self) -> None:
        """Remember the differences found so far; only these are waited for."""
        self._execute("delete from pending")
        self._execute("insert into pending select distinct id from open")

    def compare(self, targets: Sequence[int], *, outlive: bool = False) -> None:
        """Find the differences.

        Args:
            targets: for each target, its bit of `outputs`.
            outlive: rows may outlive their documents, so unknown documents are not phantoms.
        """
        self._execute("delete from open")
        for target, bit in enumerate(targets):
            self._execute(_OPEN, {"target": target, "bit": 1 << bit, "outlive": outlive})
            self._execute(_ALTERED, {"target": target})

    def put_altered(self, target: int, looked_at: Sequence[str], altered: Iterable[str]) -> None:
        """Note which documents have rows in a target that differ from those that they should have.

        Args:
            target: the target.
            looked_at: the documents compared now; their earlier differences are forgotten.
            altered: those that differ.
        """
        self._many(
            "delete from altered where target = ? and id = ?", [(target, id.encode()) for id in looked_at]
        )
        self._many("insert into altered values (?, ?)", [(target, id.encode()) for id in altered])

    def altered(self, after: str | None, limit: int) -> list[str]:
        """Return ids that have other rows in any target, in byte order, after `after`."""
        query = "select distinct id from altered where id > ? order by id limit ?"
        return [id.decode() for (id,) in self._execute(query, ((after or "").encode(), limit))]

    def comparable(self, after: str | None, limit: int) -> list[str]:
        """Return ids of documents that may have rows, in byte order, after `after`."""
        query = f"select id from source where id > ? and {_COMPARABLE} order by id limit ?"  # noqa: S608
        return [id.decode() for (id,) in self._execute(query, ((after or "").encode(), limit))]

    def count_comparable(self) -> int:
        """Return how many documents may have rows."""
        return int(self._execute(f"select count(*) from source where {_COMPARABLE}")[0][0])  # noqa: S608

    def kept(self, target: int) -> int:
        """Return how many documents of a target have rows that outlived them in the source."""
        return int(self._execute(_KEPT, {"target": target})[0][0])

    def exclude(self, ids: Iterable[str]) -> None:
        """Exclude documents from the comparison."""
        self._many("update source set dead = 1 where id = ?", [(id.encode(),) for id in ids])

    def candidates(self, target: int, after: str | None, limit: int) -> list[str]:
        """Return ids that differ in a target, in byte order, after `after`."""
        query = "select id from open where target = ? and id > ? order by id limit ?"
        found = self._execute(query, (target, (after or "").encode(), limit))
        return [id.decode() for (id,) in found]

    def in_flight_count(self) -> int:
        """Return how many of the frozen differences still differ and are in flight."""
        query = (
            "select count(*) from open where id in (select id from in_flight)"
            " and id in (select id from pending)"
        )
        return int(self._execute(query)[0][0])

    def counts(self, target: int) -> dict[str, int]:
        """Return how many documents differ in a target by kind, without those in flight."""
        query = (
            "select kind, count(*) from open where target = ? and id not in (select id from in_flight)"
            " group by kind"
        )
        return dict(self._execute(query, (target,)))

    def examples(self, target: int, kind: str, limit: int) -> list[str]:
        """Return some of their ids."""
        query = (
            "select id from open where target = ? and kind = ? and id not in (select id from in_flight)"
            " order by id limit ?"
        )
        return [id.decode() for (id,) in self._execute(query, (target, kind, limit))]

    def differing(self, after: str | None, limit: int) -> list[str]:
        """Return ids that differ in any target, in byte order, without those in flight."""
        query = (
            "select distinct id from open where id > ? and id not in (select id from in_flight)"
            " order by id limit ?"
        )
        return [id.decode() for (id,) in self._execute(query, ((after or "").encode(), limit))]

    def size(self, table: str, target: int | None = None) -> int:
        """Return the number of documents in the source, or in a target."""
        if table == "source":
            query = "select count(*) from source where dead or outputs is null or outputs != 0"
            return int(self._execute(query)[0][0])
        return int(self._execute("select count(*) from stored where target = ?", (target,))[0][0])

    def _execute(self, statement: str, values: Mapping[str, object] | Sequence[object] = ()) -> list[Any]:
        """Return the rows of a statement. In a thread: with millions of rows it takes seconds."""
        return run_blocking(lambda: self._db.execute(statement, values).fetchall())

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        run_blocking(self._run_many, statement, rows)

    def _run_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._db.execute("begin")
        self._db.executemany(statement, rows)
        self._db.execute("commit")
