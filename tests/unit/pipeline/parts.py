"""Parts for tests of the pipeline: a feed from a list, and a transport in memory that keeps the contract."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from gevent.event import Event

from checkpoints import Checkpoint, CheckpointStore, Seq, TailKey
from pillows.clock import Clock, SystemClock
from pillows.dead_letters.store import DeadLetters
from pillows.feed.base import DatabaseIdentity
from pillows.models import Batch, Change, ChangeBatch, Document, WriteResult, guard, revision_number
from pillows.observer import Observer
from pillows.options import Options, OutputOptions
from pillows.pillow import Pillow
from pillows.runtime.tail_settings import Plan
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import PassThrough
from pillows.transports.base import KeyedTransport, TargetState, Transport

KEY = TailKey("cases", "couch/cases")


def change(id: str, *revs: str, deleted: bool = False, **body: Any) -> Change:
    """A change whose document is `body`."""
    revs = revs or ("1-a",)
    raw = None if deleted else msgspec.Raw(msgspec.json.encode({"_id": id, "_rev": revs[0]} | body))
    return Change(id=id, revs=revs, version=sum(map(revision_number, revs)), deleted=deleted, raw=raw)


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
        return [last.get(id, Change(id=id, revs=("0-",), version=0, deleted=True)) for id in ids]

    def fetch(self, change: Change) -> Document:
        self.fetched.append(change.id)
        raw = msgspec.Raw(msgspec.json.encode({"_id": change.id, "_rev": change.rev, "fetched": True}))
        return Document(id=change.id, rev=change.rev, version=change.version, deleted=False, raw=raw)

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        return None

    def pending(self, since: Seq) -> int | None:
        return 0

    def close(self) -> None:
        self.closed += 1


class MemoryTransport(KeyedTransport):
    """Keeps rows in a dictionary that outlives it, under the same guard as a real keyed target.

    Attributes:
        target: what is stored: `rows` (id -> (guard, rows per output)), `epoch`.
        fail: errors to raise from the next writes, in order.
        poison: ids that can never be written.
        batches: every batch that was written.
    """

    Connection = Options
    Output = OutputOptions

    def __init__(self, name: str = "memory", target: dict[str, Any] | None = None) -> None:
        super().__init__(name, KEY, None, {"cases": None})
        self.target: dict[str, Any] = target if target is not None else {"rows": {}, "epoch": None}
        self.fail: list[Exception] = []
        self.poison: set[str] = set()
        self.busy: list[set[str]] = []
        self.batches: list[Batch] = []
        self.claims: list[Checkpoint] = []
        self.closed = 0

    def open(self) -> TargetState:
        return TargetState(epoch=self.target["epoch"], empty=not self.live())

    def acquire(self, checkpoint: Checkpoint) -> None:
        self.claims.append(checkpoint)
        self.target["epoch"] = checkpoint.epoch

    def write(self, batch: Batch) -> WriteResult:
        self.batches.append(batch)
        if self.fail:
            raise self.fail.pop(0)
        refused, dead, retry = {}, {}, {}
        busy = self.busy.pop(0) if self.busy else set()
        for document in batch.documents:
            ours = guard(batch.epoch, document.version)
            stored = self.target["rows"].get(document.id, (-1, {}))[0]
            if document.id in busy:
                retry[document.id] = "busy"
            elif document.id in self.poison:
                dead[document.id] = "poison"
            elif stored >= ours:
                refused[document.id] = stored
            else:
                self.target["rows"][document.id] = (ours, document.rows)
        return WriteResult(refused=refused, dead=dead, retry=retry)

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        rows = self.target["rows"]
        old = [id for id, (stored, _) in rows.items() if stored < guard(epoch, 0) and id not in kept]
        for id in old:
            del rows[id]
        return len(old)

    def close(self) -> None:
        self.closed += 1

    def outputs_digest(self) -> str:
        return "same"

    def live(self) -> dict[str, Any]:
        """Id -> parsed first row of the first output, of what has rows."""
        found = {}
        for id, (_, rows) in self.target["rows"].items():
            for values in rows.values():
                for row in values:
                    found[id] = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
        return found


class Recorder(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def _note(hook: str) -> Any:  # noqa: N805 - makes the hooks below
        def tell(self: Recorder, pillow: str, **facts: Any) -> None:
            self.told.append((hook, facts))

        return tell

    change = _note("change")
    batch = _note("batch")
    retry = _note("retry")
    rewind = _note("rewind")
    dead_letter = _note("dead_letter")
    checkpoint = _note("checkpoint")
    state = _note("state")
    warning = _note("warning")
    notice = _note("notice")

    def of(self, hook: str) -> list[dict[str, Any]]:
        """What one hook was told."""
        return [facts for name, facts in self.told if name == hook]


def plan(
    folder: Path,
    feed: ListFeed,
    *transports: Transport,
    clock: Clock | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> Plan:
    """A plan over these parts, with its stores in `folder`."""
    known = {
        "key": KEY,
        "pillow": Pillow(
            name="cases", outputs=("cases",), filter=KeepAll(), transform=PassThrough(("cases",))
        ),
        "make_feed": lambda: feed,
        "make_transports": lambda: list(transports),
        "source_digest": "s",
        "pipeline_digest": "p",
        "clock": clock or SystemClock(),
        "observer": observer or Observer(),
    }
    if "store" not in settings:
        known["store"] = CheckpointStore(folder / "checkpoints")
        known["letters"] = DeadLetters(folder / "dead-letters", clock=clock)
    return Plan(**(known | settings))
