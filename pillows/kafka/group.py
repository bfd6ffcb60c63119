"""A member of a consumer group, and the listener for its partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from pillows.errors import PillowError

#: Longest time for a revoked partition to drain. A member that answers later commits nothing.
REVOKE_SECONDS = 5.0
#: Longest time to find out where an assigned partition begins.
ASSIGN_SECONDS = 60.0


class Group(Struct, frozen=True, kw_only=True):
    """A membership in a consumer group.

    Attributes:
        id: the group.
        instance_id: the member, which keeps its partitions if it comes back within the session
            (KIP-345, static membership). A second member of the same id fences the first.
        session_seconds: a member that is silent for longer loses its partitions.
    """

    id: str
    instance_id: str
    session_seconds: float = 10.0


class Offset(Struct, frozen=True, kw_only=True):
    """A position in a partition.

    Attributes:
        partition: the partition.
        offset: of the next message to read.
        metadata: text that is committed with it, at most 4,096 bytes (`offset.metadata.max.bytes`).
    """

    partition: int
    offset: int
    metadata: str = ""


class Listener(Protocol):
    """Receives changes of the assigned partitions. Called in greenlets, one call at a time."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Start reading partitions; may wait for up to `ASSIGN_SECONDS`.

        Returns:
            Partition -> the offset to start at. A partition without one is read only after `Consumer.seek`.

        Raises:
            PillowError: no partition can be read; the membership ends.
        """

    def revoked(self, partitions: Sequence[int]) -> Sequence[Offset]:
        """Drain partitions; may wait for up to `REVOKE_SECONDS`.

        Returns:
            The offsets to commit. They are dropped if this returns too late.
        """

    def lost(self, partitions: Sequence[int]) -> None:
        """Stop partitions that another member already has: nothing can be committed for them."""

    def failed(self, error: PillowError) -> None:
        """Note that the membership has ended. `lost` was called for all its partitions before."""
