"""Several writers beside each other, each with documents of its own.

What an item is about decides on its partition, so that all versions of a document are written one after the
other, by one writer; documents of different partitions overtake each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from zlib import crc32

from pillows.delivery.fanout import raise_most_severe
from pillows.delivery.pusher import Pusher

Item = TypeVar("Item")


class PartitionedPusher(Generic[Item]):
    """Pushes items to one of several pushers; looks like one.

    Args:
        make: makes a pusher.
        count: how many.
        id_of: the document that an item is about; empty where it is about none.
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

    def flush(self) -> None:
        """End the linger of what was pushed."""
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
        """Kill the writers. What they were writing may or may not be written."""
        for partition in self._partitions:
            partition.kill(block=block)
