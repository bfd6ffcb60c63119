"""A feed that hands over batches from a list, and the changes to fill it with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from gevent.event import Event

from checkpoints import Seq
from pillows.feed.base import DatabaseIdentity
from pillows.models import Change, ChangeBatch, Document, revision_number


def change(id: str, *revs: str, deleted: bool = False, **body: Any) -> Change:
    """A change whose document is `body`."""
    revs = revs or ("1-a",)
    raw = None if deleted else msgspec.Raw(msgspec.json.encode({"_id": id, "_rev": revs[0]} | body))
    return Change(id=id, revs=revs, leaf_version=sum(map(revision_number, revs)), deleted=deleted, raw=raw)


def batch(seq: object, *changes: Change, caught_up: bool = False) -> ChangeBatch:
    """A batch that ends at `seq`."""
    return ChangeBatch(
        changes=changes, seq=None if seq is None else Seq.of(seq), caught_up=caught_up, size_bytes=100
    )


class ListFeed:
    """Hands over batches from a list that a test may still extend; each is read once per run."""

    def __init__(
        self, batches: Sequence[ChangeBatch] = (), *, identity: DatabaseIdentity | None = None
    ) -> None:
        self.queue = list(batches)
        self.identity = identity or DatabaseIdentity(server_uuid="u", instance_start_time="1700000000")
        self.sums: dict[str, int] = {}
        self.asked: list[Seq] = []
        self.fetched: list[str] = []
        self.looked_up: list[list[str]] = []
        self.end = False
        self.last_byte_at: float | None = None
        self.trouble: str | None = None
        self.closed = 0

    def identify(self) -> DatabaseIdentity:
        return self.identity

    def mark(self) -> bool:
        return False

    def start(self) -> Seq:
        return Seq.BEGINNING

    def find_first(self) -> Seq:
        return Seq.BEGINNING

    def batches(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        self.asked.append(since)
        todo = list(self.queue)
        if any(b.seq == since for b in todo):
            at = max(i for i, b in enumerate(todo) if b.seq == since)
            todo = todo[at + 1 :]
        for item in todo:
            if stop.is_set():
                return
            yield item
        if not self.end:
            stop.wait(600)

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        return {id: self.sums[id] for id in ids if id in self.sums}

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        self.looked_up.append(list(ids))
        last = {change.id: change for batch in self.queue for change in batch.changes}
        return [last.get(id, Change(id=id, revs=("0-",), leaf_version=0, deleted=True)) for id in ids]

    def fetch(self, change: Change) -> Document:
        self.fetched.append(change.id)
        raw = msgspec.Raw(msgspec.json.encode({"_id": change.id, "_rev": change.rev, "fetched": True}))
        return Document(
            id=change.id, rev=change.rev, leaf_version=change.leaf_version, deleted=False, raw=raw
        )

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        return None

    def pending(self, since: Seq) -> int | None:
        return 0

    def close(self) -> None:
        self.closed += 1
