"""The entries of a journal in memory. There may be ten thousand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

from checkpoints.replica import Key


class Entries(MutableMapping[Key, bytes]):
    """Entries by key, in groups of keys that differ in their last name only.

    So a key takes the memory of one name: as a tuple, it would take more than twice as much.

    Args:
        entries: those to begin with.
    """

    def __init__(self, entries: Mapping[Key, bytes] | None = None) -> None:
        self._groups: dict[Key, dict[str, bytes]] = {}
        self.update(entries or {})

    def __getitem__(self, key: Key) -> bytes:
        return self._groups[key[:-1]][key[-1]]

    def __setitem__(self, key: Key, entry: bytes) -> None:
        self._groups.setdefault(key[:-1], {})[key[-1]] = entry

    def __delitem__(self, key: Key) -> None:
        del self._groups[key[:-1]][key[-1]]

    def __iter__(self) -> Iterator[Key]:
        return ((*names, last) for names, group in self._groups.items() for last in group)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))
