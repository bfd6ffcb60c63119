"""Counts batches and discards them: for benchmarks and dry runs."""

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
    """An output has no settings."""


class NullTransport(AppendOnlyTransport):
    """Accepts everything.

    Attributes:
        batches, documents, rows: how many it has received.
    """

    TYPE: ClassVar[str] = "null"
    Connection: ClassVar[type[Options]] = NullConnection
    Output: ClassVar[type[OutputOptions]] = NullOutput
    takes_json: ClassVar[bool] = True
    concurrent: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    def __init__(
        self, name: str, key: TailKey, connection: NullConnection, outputs: Mapping[str, NullOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self.batches = self.documents = self.rows = 0

    def check(self) -> str:
        """Return at once: nothing can be wrong."""
        return "counts and discards"

    def preview(self, batch: Batch) -> str:  # noqa: ARG002  # the contract's
        """Return that nothing is sent."""
        return "nothing"

    def write(self, batch: Batch) -> WriteResult:
        """Count the batch."""
        self.batches += 1
        self.documents += len(batch.documents)
        for document in batch.documents:
            self.rows += sum(len(rows) for rows in document.rows.values())
        return WriteResult()
