"""The tails that the operator has paused, in a small file that outlives the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from checkpoints import IntegrityError, TailKey
from checkpoints.files.blocking import run_blocking
from checkpoints.files.directory import replace_file

#: The file's format; a file with a greater number was written by a newer pillowd.
FORMAT = 1


class Pauses:
    """The set of paused tails, written durably with every change.

    Args:
        path: the file; its folder must exist, the file need not.

    Raises:
        IntegrityError: the file is damaged, or a newer pillowd wrote it. Without it, tails that
            somebody has paused would start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = _read(path)

    def __contains__(self, key: TailKey) -> bool:
        return str(key) in self._keys

    def add(self, key: TailKey) -> None:
        """Add a tail. Durable on return; raises OSError if it cannot be written."""
        self._change(self._keys | {str(key)})

    def discard(self, key: TailKey) -> None:
        """Discard a tail. Durable on return; raises OSError if it cannot be written."""
        self._change(self._keys - {str(key)})

    def _change(self, keys: frozenset[str]) -> None:
        if keys != self._keys:
            run_blocking(
                replace_file, self._path, json.dumps({"format": FORMAT, "paused": sorted(keys)}).encode()
            )
            self._keys = keys


def _read(path: Path) -> frozenset[str]:
    try:
        content = json.loads(path.read_bytes())
        file_format = content["format"]
        keys = [] if file_format != FORMAT else msgspec.convert(content["paused"], list[str])
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path} is not a list of paused pillows ({error}). Remedy: delete it to run them all"
        ) from error
    if file_format != FORMAT:
        raise IntegrityError(
            f"{path} has format {file_format}, this pillowd knows {FORMAT}. Remedy: run the newer pillowd"
        )
    return frozenset(keys)
