"""Settings of a folder of JSON-lines files, and of one file in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pillows.options import Options, OutputOptions, Size
from pillows.transports.common.addresses import to_file_address


class JsonlConnection(Options):
    """The folder of the files.

    Attributes:
        folder: it must exist.
    """

    folder: Path


class JsonlOutput(OutputOptions):
    """One output's file.

    Attributes:
        file: its name in the folder; `.gz` is appended to a compressed one.
        segment_size: finish a file of this size and begin the next one, numbered; one file unless given.
        gzip: compress.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("file",)
    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"segment_size"})

    file: str = Field(pattern=r"^[^/]+$")
    segment_size: Size | None = Field(default=None, gt=0)
    gzip: bool = False

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """Return the file's address, with its `.gz` if it is compressed; see `OutputOptions.addresses`."""
        name = f"{self.file}.gz" if self.gzip else self.file
        return frozenset({("file", to_file_address(connection.folder / name))})
