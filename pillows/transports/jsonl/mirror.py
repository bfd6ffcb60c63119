"""A JSON-lines file as a mirror's target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pillows.errors import ConfigError
from pillows.transports.common.mirroring import Endpoint, MirrorSupport


class JsonlMirror(MirrorSupport):
    """A file in a folder."""

    SCHEMES: ClassVar[tuple[str, ...]] = ("jsonl",)
    FORM: ClassVar[str] = "jsonl:FOLDER"

    def parse(self, text: str) -> Endpoint:
        """Return the folder; see `MirrorSupport.parse`."""
        path = text.removeprefix("jsonl:")
        if not path:
            raise ConfigError(f"{text} does not name a folder.", remedy=f"write {self.FORM}")
        folder = Path(path).absolute()
        return Endpoint(connection={"type": "jsonl", "folder": str(folder)}, folder=folder)

    def make_output(self, name: str) -> Mapping[str, Any]:
        """Return a file of that name."""
        return {"file": f"{name}.jsonl"}
