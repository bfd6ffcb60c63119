"""A second copy of a store's entries. An entry is durable only once this copy has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

#: The names of an entry, such as `("checkpoint", "cases", "couch/cases")`.
Key = tuple[str, ...]


class ReplicaWriter(Protocol):
    """The part of a replica that takes what changes."""

    def write(self, entries: Mapping[Key, bytes | None]) -> None:
        """Store entries; None removes one. They are durable when this returns.

        Raises:
            StoreWriteError: the write failed, or may have; some of the entries may be there.
        """


class Replica(ReplicaWriter, Protocol):
    """The copy of one store, kept where other machines find it.

    A store that has one begins with the copy's entries, and is only a cache of it from then on. It calls no
    write durable before the copy has it.
    """

    def read(self) -> Mapping[Key, bytes] | None:
        """Return all entries as JSON; None if the copy was never filled.

        Raises:
            StoreError: it cannot be read.
        """
