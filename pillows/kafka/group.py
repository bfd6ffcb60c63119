"""A member of a consumer group, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pillows.errors import PillowError

#: Longest time for a revoked partition to drain. A member that answers later commits nothing.
REVOKE_SECONDS = 5.0
#: Longest time to find out where an assigned partition begins.
ASSIGN_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A membership in a consumer group.

    Attributes:
        id: the group.
        instance_id: the member, which keeps its partitions if it comes back within the session
            (KIP-345, static membership). A second member of the same id fences the first.
        session_seconds: a member that is silent for so long loses its partitions.
    """

    id: str
    instance_id: str
    session_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
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
    """Hears of a group's partitions. Called in greenlets, one call at a time."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Begin with partitions; may wait for up to `ASSIGN_SECONDS`.

        Returns:
            Partition -> the offset where it begins. One that is missing is not read before `Consumer.seek`.

        Raises:
            PillowError: none can be read; the membership ends.
        """

    def revoked(self, partitions: Sequence[int]) -> Sequence[Offset]:
        """Drain partitions; may wait for up to `REVOKE_SECONDS`.

        Returns:
            What to commit for them. It is refused if it comes too late.
        """

    def lost(self, partitions: Sequence[int]) -> None:
        """Cut partitions that another member has already: nothing can be committed for them."""

    def failed(self, error: PillowError) -> None:
        """Note that the membership has ended, after `lost` for all of its partitions."""
