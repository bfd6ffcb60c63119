"""The messages of one partition between the thread that reads them and the hub."""

from __future__ import annotations

from collections import deque

from confluent_kafka import Message as LibraryMessage

#: Memory of a message in addition to its value, in bytes.
_MESSAGE_BYTES = 300


class PartitionQueue:
    """A queue with one writer, a thread, and one reader, the hub; it needs no lock.

    Args:
        max_bytes: above this the queue is full, until it has shrunk to half.

    Attributes:
        is_paused: whether fetching is paused. Only the thread uses it.
        end_offset: the offset after the last message of the partition, as last seen by the thread.
    """

    __slots__ = ("_max_bytes", "_messages", "_put_bytes", "_taken_bytes", "end_offset", "is_paused")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[LibraryMessage] = deque()
        self._put_bytes = 0  # each side writes its own
        self._taken_bytes = 0
        self.is_paused = False
        self.end_offset: int | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that wait."""
        return self._put_bytes - self._taken_bytes

    @property
    def is_full(self) -> bool:
        """Whether fetching should be paused."""
        return self.size_bytes > (self._max_bytes // 2 if self.is_paused else self._max_bytes)

    def __bool__(self) -> bool:
        return bool(self._messages)

    def put(self, message: LibraryMessage) -> None:
        """Add a message. For the thread."""
        self._put_bytes += _MESSAGE_BYTES + len(message)
        self._messages.append(message)

    def take(self) -> list[LibraryMessage]:
        """Take every message. For the hub."""
        taken = [self._messages.popleft() for _ in range(len(self._messages))]
        self._taken_bytes += _MESSAGE_BYTES * len(taken) + sum(map(len, taken))
        return taken
