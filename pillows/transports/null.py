"""Counts what it is given and keeps nothing: for benches, dry runs, and measuring the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from checkpoints import Checkpoint, TailKey
from pillows.models import Batch, Standing, WriteResult
from pillows.options import Options
from pillows.transports.base import Transport


class NullConnection(Options):
    """There is nothing to connect to."""


class NullOutput(Options):
    """There is nothing to choose."""


class NullTransport(Transport):
    """Takes everything.

    Attributes:
        batches, documents, rows: how many it was given since it was made.
    """

    Connection: ClassVar[type[Options]] = NullConnection
    Output: ClassVar[type[Options]] = NullOutput
    guarded: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    concurrent: ClassVar[bool] = True

    def __init__(
        self, name: str, key: TailKey, connection: NullConnection, outputs: Mapping[str, NullOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self.batches = self.documents = self.rows = 0

    def check(self) -> str:
        """Nothing can be wrong; see `Transport.check`."""
        return "counts and discards"

    def open(self) -> Standing:
        """Nothing is remembered."""
        return Standing()

    def preview(self, batch: Batch) -> str:  # noqa: ARG002  # the contract's
        """Nothing is sent."""
        return "nothing"

    def claim(self, checkpoint: Checkpoint) -> None:
        """Nothing can be claimed."""

    def write(self, batch: Batch) -> WriteResult:
        """Counts the batch."""
        self.batches += 1
        self.documents += len(batch.documents)
        for document in batch.documents:
            self.rows += sum(len(rows) for rows in document.rows.values())
        return WriteResult()

    def complete_pass(self, epoch: int, kept: Collection[str] = ()) -> int:  # noqa: ARG002  # the contract's
        """Nothing is there to be removed."""
        return 0

    def close(self) -> None:
        """Nothing is open."""

    def outputs_digest(self) -> str:
        """Nothing can change."""
        return ""
