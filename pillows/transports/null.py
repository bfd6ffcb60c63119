"""Counts what it is given and keeps nothing: for benches, dry runs, and measuring the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from checkpoints import TailKey
from pillows.models import Batch, WriteResult
from pillows.options import Options, OutputOptions
from pillows.transports.base import AppendOnlyTransport


class NullConnection(Options):
    """There is nothing to connect to."""


class NullOutput(OutputOptions):
    """There is nothing to choose."""


class NullTransport(AppendOnlyTransport):
    """Takes everything.

    Attributes:
        batches, documents, rows: how many it was given since it was made.
    """

    TYPE: ClassVar[str] = "null"
    Connection: ClassVar[type[Options]] = NullConnection
    Output: ClassVar[type[OutputOptions]] = NullOutput
    concurrent: ClassVar[bool] = True

    def __init__(
        self, name: str, key: TailKey, connection: NullConnection, outputs: Mapping[str, NullOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self.batches = self.documents = self.rows = 0

    def check(self) -> str:
        """Nothing can be wrong; see `Transport.check`."""
        return "counts and discards"

    def preview(self, batch: Batch) -> str:  # noqa: ARG002  # the contract's
        """Nothing is sent."""
        return "nothing"

    def write(self, batch: Batch) -> WriteResult:
        """Counts the batch."""
        self.batches += 1
        self.documents += len(batch.documents)
        for document in batch.documents:
            self.rows += sum(len(rows) for rows in document.rows.values())
        return WriteResult()
