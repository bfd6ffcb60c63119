"""The tails that the operator has paused, in a small file that outlives the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec

from checkpoints import IntegrityError, TailKey
from checkpoints.replica import Replica
from daemon.state_file import StateFile

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
        self._file = StateFile(path)
        self._keys = _read(path)
        self._replica: Replica | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no tail is paused."""
        return not self._keys

    def attach(self, replica: Replica) -> None:
        """Begin with the replica's tails, or give it ours if it has none; change both from now on.

        Raises:
            StoreError: the replica cannot be read or written.
            OSError: the file cannot be written.
        """
        known = replica.read()
        if known is None:
            replica.write({(key,): b"true" for key in self._keys})
        else:
            self._change(lambda _: frozenset(key for (key,) in known))
        self._replica = replica

    def __contains__(self, key: TailKey) -> bool:
        return str(key) in self._keys

    def add(self, key: TailKey) -> None:
        """Add a tail. Durable on return; raises OSError or StoreWriteError if it cannot be written."""
        self._change(lambda keys: keys | {str(key)})

    def discard(self, key: TailKey) -> None:
        """Discard a tail. Durable on return; raises as `add`."""
        self._change(lambda keys: keys - {str(key)})

    def _change(self, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        with self._file:
            keys = change(self._keys)
            if keys == self._keys:
                return
            self._file.write({"format": FORMAT, "paused": sorted(keys)})
            if self._replica is not None:
                self._replica.write({(key,): b"true" if key in keys else None for key in keys ^ self._keys})
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
