"""A transport in memory that keeps the contract of a keyed target."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import gevent
import msgspec

from checkpoints import Checkpoint, TailKey
from pillows.models import Batch, WriteResult, write_version
from pillows.options import Options, OutputOptions
from pillows.transports.base import KeyedTransport, TargetState

KEY = TailKey("cases", "couch/cases")


class Died(BaseException):
    """The process died after the target had stored a batch, and before it was acknowledged."""


class MemoryTransport(KeyedTransport):
    """Keep rows in a dictionary that outlives the transport, under the same guard as a real keyed target.

    Args:
        name: as the configuration names the transport.
        target: what another transport has stored; empty by default.
        transactional: save the checkpoint with the rows, as `target["checkpoint"]`.
        concurrent: several batches may be written at once.
        delay_seconds: how long each write takes.
        poison: ids that can never be written.
        dies_at: the number of the write, from 1, that is stored and then raises `Died`.
        before_write: called with each batch before anything of it is stored.

    Attributes:
        target: the stored state: `rows` (id -> (guard, rows per output)), `epoch`.
        fail: errors to raise from the next writes, in order.
        busy: for each of the next writes, the ids to write later.
        batches: every batch that was written.
        in_flight, most_in_flight: writes at this moment, and at most.
    """

    Connection = Options
    Output = OutputOptions

    def __init__(
        self,
        name: str = "memory",
        target: dict[str, Any] | None = None,
        *,
        transactional: bool | None = None,
        concurrent: bool | None = None,
        delay_seconds: float = 0.0,
        poison: Collection[str] = (),
        dies_at: int | None = None,
        before_write: Callable[[Batch], object] = lambda _batch: None,
    ) -> None:
        super().__init__(name, KEY, None, {"cases": None})
        self.target: dict[str, Any] = target if target is not None else {"rows": {}, "epoch": None}
        if transactional is not None:
            self.transactional = transactional  # type: ignore[misc] # of the instance, for a test
        if concurrent is not None:
            self.concurrent = concurrent  # type: ignore[misc]
        self.delay_seconds = delay_seconds
        self.poison = set(poison)
        self.dies_at = dies_at
        self.before_write = before_write
        self.fail: list[Exception] = []
        self.busy: list[set[str]] = []
        self.batches: list[Batch] = []
        self.claims: list[Checkpoint] = []
        self.in_flight = self.most_in_flight = 0
        self.closed = 0

    def open(self) -> TargetState:
        checkpoint = self.target.get("checkpoint") if self.transactional else None
        return TargetState(epoch=self.target["epoch"], empty=not self.live(), checkpoint=checkpoint)

    def acquire(self, checkpoint: Checkpoint) -> None:
        self.claims.append(checkpoint)
        self.target["epoch"] = checkpoint.epoch
        if self.transactional:
            self.target["checkpoint"] = checkpoint

    def write(self, batch: Batch) -> WriteResult:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.before_write(batch)
            if self.delay_seconds:
                gevent.sleep(self.delay_seconds)
            return self._store(batch)
        finally:
            self.in_flight -= 1

    def _store(self, batch: Batch) -> WriteResult:
        self.batches.append(batch)
        if self.fail:
            raise self.fail.pop(0)
        refused, dead, retry = {}, {}, {}
        busy = self.busy.pop(0) if self.busy else set()
        for document in batch.documents:
            ours = write_version(batch.epoch, document.leaf_version)
            stored = self.target["rows"].get(document.id, (-1, {}))[0]
            if document.id in busy:
                retry[document.id] = "busy"
            elif document.id in self.poison:
                dead[document.id] = "poison"
            elif stored >= ours:
                refused[document.id] = stored
            else:
                self.target["rows"][document.id] = (ours, document.rows)
        if self.transactional and batch.checkpoint is not None and not (refused or dead or retry):
            self.target["checkpoint"] = batch.checkpoint
        if len(self.batches) == self.dies_at:
            raise Died
        return WriteResult(refused=refused, dead=dead, retry=retry)

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        rows = self.target["rows"]
        old = [id for id, (stored, _) in rows.items() if stored < write_version(epoch, 0) and id not in kept]
        for id in old:
            del rows[id]
        return len(old)

    def close(self) -> None:
        self.closed += 1

    def outputs_digest(self) -> str:
        return "same"

    def live(self) -> dict[str, Any]:
        """Id -> parsed first row of the first output, for documents with rows."""
        found = {}
        for id, (_, rows) in self.target["rows"].items():
            for values in rows.values():
                for row in values:
                    found[id] = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
        return found
