"""Find the partition of a document, as Java's clients and the reader's producer do."""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_FACTOR = 0x5BD1E995
_SEED = 0x9747B28C


def find_partition(id: str, count: int) -> int:
    """Return the partition of a document.

    Args:
        id: its id.
        count: of the topic's partitions.
    """
    return (hash_key(id.encode()) & 0x7FFFFFFF) % count


def hash_key(key: bytes) -> int:
    """Return the murmur2 hash of a key as an unsigned number (Kafka, `Utils.murmur2`)."""
    found = (_SEED ^ len(key)) & _MASK
    whole = len(key) & ~3
    for begin in range(0, whole, 4):
        part = int.from_bytes(key[begin : begin + 4], "little") * _FACTOR & _MASK
        part = (part ^ part >> 24) * _FACTOR & _MASK
        found = (found * _FACTOR & _MASK) ^ part
    if rest := key[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * _FACTOR & _MASK
    found = (found ^ found >> 13) * _FACTOR & _MASK
    return found ^ found >> 15
