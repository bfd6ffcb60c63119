"""A small file of the state directory that is replaced as a whole, by one change after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec
from gevent.lock import Semaphore

from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import replace_file


class StateFile:
    """A file, and whose turn it is to change it: `with file: ...; file.write(...)`.

    A write gives way to other greenlets. Whoever changes what is kept computes the change within his turn, or
    two changes at once would lose one of them.

    Args:
        path: of the file; its folder must exist, the file need not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = Semaphore(1)

    def __enter__(self) -> Self:
        self._turn.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._turn.release()

    def write(self, content: object) -> None:
        """Replace the content, as JSON. Durable on return.

        Raises:
            OSError: it can't be written; see `replace_file`.
        """
        run_blocking(replace_file, self._path, msgspec.json.encode(content))
