"""The tails that the operator has paused, in a small file that outlives the daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from checkpoints import TailKey
from checkpoints.replica import Replica
from daemon.state_file import StateFile, read_state_file
from daemon.tail_lookup import is_pattern

#: The file's format; a file with a greater number was written by a newer pillowd.
FORMAT = 1


class _File(msgspec.Struct, frozen=True):
    format: int
    paused: frozenset[str]


class PausedTails(Protocol):
    """The paused tails, which do not run until they are resumed."""

    def __contains__(self, key: TailKey) -> bool:
        """Return whether a tail is paused."""

    def add(self, key: TailKey) -> None:
        """Add a tail."""

    def discard(self, key: TailKey) -> None:
        """Discard a tail."""


class NoPauses:
    """No pauses: a partition of a pillow is never paused by itself."""

    def __contains__(self, key: TailKey) -> bool:
        return False

    def add(self, key: TailKey) -> None:
        """Do nothing."""

    def discard(self, key: TailKey) -> None:
        """Do nothing."""


class Pauses:
    """The set of paused tails, written durably with every change.

    Args:
        path: the file; its folder must exist, the file need not.

    Raises:
        IntegrityError: the file is damaged, or a newer pillowd wrote it. Without it, paused tails would
            start.
    """

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path)
        self._keys = _read(path)
        self._is_written = True
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
        return not self._keys.isdisjoint(self._find_names(key))

    def add(self, key: TailKey) -> None:
        """Add a tail. Durable on return; raises OSError or StoreWriteError if it cannot be written."""
        self._change(lambda keys: keys | {str(key)})

    def discard(self, key: TailKey) -> None:
        """Discard a tail. Durable on return; raises as `add`."""
        self._change(lambda keys: keys - self._find_names(key))

    def follow(self, keys: frozenset[str]) -> None:
        """Replace the tails by those of the replica, which were changed by another daemon.

        They count at once: on a full disk, too, a tail must stop that an operator has paused elsewhere.

        Raises:
            OSError: the file cannot be written; call this again.
        """
        with self._file:
            if keys != self._keys or not self._is_written:
                self._keys = keys
                self._write(keys)

    def _find_names(self, key: TailKey) -> frozenset[str]:
        """Return the names that pause a tail: one of several databases stays paused under another pattern."""
        found = {str(key)}
        if is_pattern(key):
            connection = key.source.partition("/")[0]
            paused = (name.partition("@") for name in self._keys)
            tails = (TailKey(pillow, source) for pillow, _, source in paused if pillow == key.pillow)
            found |= {
                str(each) for each in tails if is_pattern(each) and each.source.startswith(f"{connection}/")
            }
        return frozenset(found)

    def _change(self, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        with self._file:
            keys = change(self._keys)
            if keys == self._keys:
                return
            self._write(keys)
            if self._replica is not None:
                self._replica.write({(key,): b"true" if key in keys else None for key in keys ^ self._keys})
            self._keys = keys

    def _write(self, keys: frozenset[str]) -> None:
        self._is_written = False
        self._file.write({"format": FORMAT, "paused": sorted(keys)})
        self._is_written = True


def _read(path: Path) -> frozenset[str]:
    try:
        found = read_state_file(
            path,
            _File,
            format=FORMAT,
            what="a list of paused pillows",
            remedy="delete it to run them all",
        )
    except FileNotFoundError:
        return frozenset()
    return found.paused
