"""The checkpoint of one assigned partition, kept as the committed offset of its consumer group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from msgspec.structs import replace

from checkpoints import Checkpoint, CheckpointMoved, StoreWriteError, TailKey
from daemon.kafka.offset_metadata import PartitionPosition, encode_offset, reset_if_due
from pillows.errors import RetryableError, StateLostError
from pillows.kafka.group import Offset


class Offsets(Protocol):
    """Commits the offsets of a group's member."""

    def commit(self, offsets: Sequence[Offset]) -> None:
        """Commit offsets of partitions that the member has.

        Raises:
            RetryableError: they may not have been committed.
        """


class PartitionCheckpoints:
    """The checkpoint of one partition's tail; see `Checkpoints` for the methods.

    It exists from the assignment of the partition until the partition is revoked or lost.

    Args:
        key: the partition's tail.
        number: of the partition.
        position: the committed position, or the error that says why the tail can't begin there.
        offsets: commits.
        on_commit: called with each committed position.
    """

    def __init__(
        self,
        key: TailKey,
        number: int,
        position: PartitionPosition | StateLostError,
        *,
        offsets: Offsets,
        on_commit: Callable[[PartitionPosition], None] = lambda _: None,
    ) -> None:
        self._key = key
        self._number = number
        self._lost = position if isinstance(position, StateLostError) else None
        self._position = None if isinstance(position, StateLostError) else position
        self._offsets = offsets
        self._on_commit = on_commit
        self._on_edit: Callable[[], None] | None = None
        self._is_ours = True

    @property
    def offset(self) -> Offset | None:
        """The last committed offset; None if there is none."""
        return None if self._position is None else encode_offset(self._number, self._position)

    def get(self, tail: TailKey) -> Checkpoint | None:  # noqa: ARG002 - it is the only one
        """Return the last committed checkpoint.

        Raises:
            StateLostError: the offset is gone, or can't be read.
        """
        if self._lost is not None:
            raise self._lost
        return None if self._position is None else self._position.checkpoint

    def save(self, tail: TailKey, checkpoint: Checkpoint) -> None:
        """Commit a running tail's checkpoint.

        Raises:
            CheckpointMoved: an operator has reset the checkpoint meanwhile.
            StoreWriteError: the checkpoint was not committed: the group is rebalancing, the brokers can't be
                reached, or the partition belongs to another member.
        """
        stored = self.get(tail)
        resets = 0 if self._position is None else self._position.resets
        if stored is not None and stored.edits != checkpoint.edits:
            raise CheckpointMoved(
                f"the checkpoint of {tail} was edited: {stored.edits} times, not {checkpoint.edits}"
            )
        self._commit(PartitionPosition(checkpoint=checkpoint, resets=resets))

    def edit(self, tail: TailKey, change: Callable[[Checkpoint | None], Checkpoint]) -> Checkpoint:
        """Change the checkpoint, increment its `edits`, and commit it.

        Raises:
            StoreWriteError: as `save`.
        """
        stored = self.get(tail)
        changed = change(stored)
        changed = replace(changed, edits=max(changed.edits, stored.edits if stored else 0) + 1)
        resets = 0 if self._position is None else self._position.resets
        self._commit(PartitionPosition(checkpoint=changed, resets=resets))
        self._tell()
        return changed

    def take_resets(self, resets: int) -> None:
        """Apply resets that operators have requested since the last commit.

        Raises:
            StoreWriteError: as `save`; call again.
        """
        position = self._position
        if position is None:  # it was lost: the next owner, or the next start, begins anew
            return
        if (reset := reset_if_due(position, resets)) is not position:
            self._commit(reset)
            self._tell()

    def keys(self) -> list[TailKey]:
        """List the tail, if it has a checkpoint."""
        return [] if self._position is None else [self._key]

    @contextmanager
    def watching(self, tail: TailKey, on_edit: Callable[[], None]) -> Iterator[None]:  # noqa: ARG002 - it is the only one
        """Call `on_edit` inside the block after each edit."""
        self._on_edit = on_edit
        try:
            yield
        finally:
            self._on_edit = None

    def cut(self) -> None:
        """Refuse all further commits: the partition belongs to another member.

        Kafka would accept a late commit: it checks the group's generation, and not who owns the partition.
        """
        self._is_ours = False

    def _commit(self, position: PartitionPosition) -> None:
        if not self._is_ours:
            raise StoreWriteError(f"Partition {self._number} belongs to another member of the group.")
        try:
            self._offsets.commit([encode_offset(self._number, position)])
        except RetryableError as error:
            raise StoreWriteError(str(error)) from error
        if not self._is_ours:  # revoked meanwhile: what was committed counts, but not here
            raise StoreWriteError(f"Partition {self._number} belongs to another member of the group.")
        self._position = position
        self._on_commit(position)

    def _tell(self) -> None:
        if self._on_edit is not None:
            self._on_edit()
