"""A replica in memory, which can be made to fail."""

from __future__ import annotations

from collections.abc import Mapping

import gevent

from checkpoints import StoreWriteError
from checkpoints.replica import Key


class DictReplica:
    """Keeps entries in a dict.

    Args:
        entries: its entries; None if it was never filled.

    Attributes:
        fails: whether writes fail.
    """

    def __init__(self, entries: Mapping[Key, bytes] | None = None) -> None:
        self.entries = None if entries is None else dict(entries)
        self.fails = False

    def read(self) -> Mapping[Key, bytes] | None:
        return self.entries

    def write(self, entries: Mapping[Key, bytes | None]) -> None:
        if self.fails:
            raise StoreWriteError("the replica is away")
        self.entries = self.entries or {}
        for key, entry in entries.items():
            if entry is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = entry


class SlowReplica(DictReplica):
    """Gives way to other greenlets with every write."""

    def write(self, entries: Mapping[Key, bytes | None]) -> None:
        gevent.sleep(0.01)
        super().write(entries)
