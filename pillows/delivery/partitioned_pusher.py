"""Several concurrent writers, each with its own partition of the documents.

An item's document id decides on its partition, so one writer writes all versions of a document in order.
Documents of different partitions may overtake each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from zlib import crc32

from pillows.delivery.fanout import raise_most_severe
from pillows.delivery.pusher import Pusher

Item = TypeVar("Item")


class PartitionedPusher(Generic[Item]):
    """Pushes each item to one of several pushers. Has the methods of `Pusher`.

    Args:
        make: creates a pusher.
        count: number of pushers.
        id_of: returns an item's document id; empty if the item has no document.
    """

    def __init__(self, make: Callable[[], Pusher[Item]], count: int, id_of: Callable[[Item], str]) -> None:
        self._partitions = [make() for _ in range(count)]
        self._id_of = id_of

    def push(self, item: Item, size_bytes: int) -> bool:
        """Hand over an item; wait while its partition is full. Return whether it waited.

        Raises:
            The error of the partition's writer, if it has ended with one.
        """
        partitions = self._partitions
        number = crc32(self._id_of(item).encode()) % len(partitions) if len(partitions) > 1 else 0
        return partitions[number].push(item, size_bytes)

    def expect(self, *, more: bool) -> None:
        """Tell whether more items follow at once. See `Batcher.expect`."""
        for partition in self._partitions:
            partition.expect(more=more)

    def flush(self) -> None:
        """Stop waiting for more documents: write the pushed ones."""
        for partition in self._partitions:
            partition.flush()

    def finish(self) -> None:
        """Wait until everything pushed is written, and end the writers.

        Raises:
            The worst error of a writer, once all have ended.
        """
        self.flush()
        errors: list[Exception] = []
        for partition in self._partitions:
            try:
                partition.finish()
            except Exception as error:  # noqa: BLE001 - raised below, once all partitions have ended
                errors.append(error)
        raise_most_severe(errors)

    def kill(self, *, block: bool = True) -> None:
        """Kill the writers. Their current batches may or may not have been written."""
        for partition in self._partitions:
            partition.kill(block=block)
