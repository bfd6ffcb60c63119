"""Print JSON lines on standard output, for people or for a pipe.

The lines are those of `jsonl`. A reader that does not keep up slows down this pillow and no other: the
write waits in a thread. A line counts once the pipe or terminal has accepted it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import ClassVar

from checkpoints import TailKey
from pillows.errors import FatalError
from pillows.models import Batch, WriteResult
from pillows.options import Options, OutputOptions
from pillows.serial_worker import SerialWorker
from pillows.transports.base import AppendOnlyTransport
from pillows.transports.common.json_lines import encode_batch, preview_batch


class StdoutConnection(Options):
    """There is only one standard output."""


class StdoutOutput(OutputOptions):
    """An output has no settings."""


class StdoutTransport(AppendOnlyTransport):
    """Prints; see the module."""

    TYPE: ClassVar[str] = "stdout"
    Connection: ClassVar[type[Options]] = StdoutConnection
    Output: ClassVar[type[OutputOptions]] = StdoutOutput
    takes_json: ClassVar[bool] = True

    def __init__(
        self, name: str, key: TailKey, connection: StdoutConnection, outputs: Mapping[str, StdoutOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._worker = SerialWorker()

    def check(self) -> str:
        """Return at once: standard output always exists."""
        return "standard output"

    def preview(self, batch: Batch) -> str:
        """Return the lines; see `Transport.preview`."""
        return preview_batch(batch, self.outputs)

    def write(self, batch: Batch) -> WriteResult:
        """Print the batch's lines; see `Transport.write`.

        Raises:
            FatalError: the reader of the pipe is gone.
        """
        encoded, dead = encode_batch(batch, self.outputs)
        self._worker.run(_print, b"".join(lines for document in encoded for lines in document.values()))
        return WriteResult(dead=dead)


def _print(text: bytes) -> None:
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise FatalError(
            "The reader of the standard output is gone.", remedy="restart the pillow with a reader"
        ) from error
