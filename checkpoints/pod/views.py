"""The entries of a store as pairs: as they are given, and as they are looked at."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Any, Protocol

Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


class Walkable(Protocol):
    """What can be walked through entry by entry."""

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        """The keys in order with their values."""

    def itervalues(self) -> Iterator[Any]:
        """The values in the order of the keys."""


class Items(ItemsView[Any, Any]):
    """Keys with their values; one that is removed meanwhile is left out."""

    _mapping: Walkable

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping.iteritems()


class Values(ValuesView[Any]):
    """Values; that of a key that is removed meanwhile is left out."""

    _mapping: Walkable

    def __iter__(self) -> Iterator[Any]:
        return self._mapping.itervalues()


def pairs(other: Any) -> list[tuple[Any, Any]]:
    """The entries of a mapping, of anything with `keys()`, or of pairs."""
    if hasattr(other, "keys"):
        other = [(key, other[key]) for key in list(other.keys())]
    return [(key, value) for key, value in other]
