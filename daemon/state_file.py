"""Small files of the state directory: read at the start, and replaced as a whole with every change."""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

import msgspec
from gevent.lock import Semaphore

from checkpoints import IntegrityError
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import replace_file

T = TypeVar("T")


class _Header(msgspec.Struct, frozen=True):
    format: int


class StateFile:
    """A file, and whose turn it is to change it: `with file: ...; file.write(...)`.

    Other greenlets run during a write. So compute a change without waiting, or one of two concurrent changes
    would be lost.

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


def read_state_file(path: Path, type: type[T], *, format: int, what: str, remedy: str) -> T:
    """Return the content of a file of JSON.

    Its format is checked first: a newer pillowd may have written other fields, too.

    Args:
        path: of the file.
        type: of the content.
        format: the only format that is understood.
        what: says what the file should be, such as "a list of rebuilds".
        remedy: what to do with a damaged one.

    Raises:
        IntegrityError: it is damaged, or a newer pillowd wrote it.
        OSError: it cannot be read, or is not there.
    """
    data = path.read_bytes()
    try:
        found = msgspec.json.decode(data, type=_Header).format
        if found == format:
            return msgspec.json.decode(data, type=type)
    except ValueError as error:  # that of `msgspec`, or bytes that are no text
        raise IntegrityError(f"{path} is not {what} ({error}). Remedy: {remedy}") from error
    raise IntegrityError(
        f"{path} has format {found}, this pillowd knows {format}. Remedy: run the newer pillowd"
    )
