"""Prints JSON lines on standard output, for a look at what a pillow makes or for a pipe.

The lines are those of `jsonl`. A reader that does not keep up slows the pillow down, and no other:
the write waits in a thread. A line counts once the pipe or terminal has taken it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import ClassVar

from checkpoints import Checkpoint, TailKey
from pillows.errors import FatalError, PermanentError
from pillows.models import Batch, Standing, WriteResult, guard
from pillows.options import Options
from pillows.transports.base import Transport, newest
from pillows.transports.common.blocking import Turns
from pillows.transports.common.json_lines import lines


class StdoutConnection(Options):
    """There is only one standard output."""


class StdoutOutput(Options):
    """There is nothing to choose."""


class StdoutTransport(Transport):
    """Prints; see the module."""

    Connection: ClassVar[type[Options]] = StdoutConnection
    Output: ClassVar[type[Options]] = StdoutOutput
    guarded: ClassVar[bool] = False
    remembers: ClassVar[bool] = False

    def __init__(
        self, name: str, key: TailKey, connection: StdoutConnection, outputs: Mapping[str, StdoutOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._turns = Turns()

    def check(self) -> str:
        """Standard output is always there; see `Transport.check`."""
        return "standard output"

    def open(self) -> Standing:
        """Nothing is remembered."""
        return Standing()

    def claim(self, checkpoint: Checkpoint) -> None:
        """Nothing can be claimed."""

    def write(self, batch: Batch) -> WriteResult:
        """Prints the batch's lines; see `Transport.write`.

        Raises:
            FatalError: the reader of the pipe has gone.
        """
        dead: dict[str, str] = {}
        texts: list[bytes] = []
        for document in newest(batch.documents):
            ours = guard(batch.epoch, document.version)
            try:
                texts += [lines(o, document, document.rows.get(o, ()), ours) for o in self.outputs]
            except PermanentError as error:
                dead[document.id] = str(error)
        self._turns.run(lambda: _print(b"".join(texts)))
        return WriteResult(dead=dead)

    def complete_pass(self, epoch: int, kept: Collection[str] = ()) -> int:  # noqa: ARG002  # the contract's
        """Nothing can be taken back."""
        return 0

    def close(self) -> None:
        """Nothing is open."""

    def outputs_digest(self) -> str:
        """Nothing can change."""
        return ""


def _print(text: bytes) -> None:
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise FatalError(
            "Whoever read the standard output has gone.", remedy="restart the pillow with a reader"
        ) from error
