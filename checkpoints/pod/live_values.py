"""Dicts and lists that report changes in place to their store.

They equal plain dicts and lists, and are serialised like them. A change marks the key of the whole value as
dirty. A value that has been overwritten, deleted or reverted is an ordinary dict or list.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Protocol, TypeVar

from checkpoints.pod.codec import Key, encode_value

T = TypeVar("T")


class ValueStore(Protocol):
    """A store that owns live values."""

    def change(self, home: ValueOwner, view: Any, change: Callable[[], T]) -> T:
        """Make a change of `view`, and keep it if the value is still the stored one."""


class ValueOwner:
    """The store and key that a live value belongs to.

    Attributes:
        owner: the store.
        key: the value's key.
        root: the whole value, while it is referenced.
    """

    __slots__ = ("_root", "key", "owner")

    def __init__(self, owner: ValueStore, key: Key) -> None:
        self.owner = owner
        self.key = key
        self._root: weakref.ref[Any] | None = None

    @property
    def root(self) -> Any:
        """Return the whole value; None when it is not referenced any more."""
        return None if self._root is None else self._root()

    def live_in(self, root: Any) -> None:
        """Set the whole value."""
        self._root = weakref.ref(root)


def live(owner: ValueStore, key: Key, value: Any) -> Any:
    """Return a decoded JSON value that reports its changes; scalars as they are."""
    if not isinstance(value, dict | list):
        return value
    home = ValueOwner(owner, key)
    root = _bound(LiveDict() if isinstance(value, dict) else LiveList(), home, None, 1)
    home.live_in(root)
    _fill(root, value)
    return root


def unwrap(value: Any) -> Any:
    """Return a value as plain dicts and lists that belong to no store."""
    if isinstance(value, dict):
        return {name: unwrap(part) for name, part in value.items()}
    if isinstance(value, list):
        return [unwrap(part) for part in value]
    if isinstance(value, tuple):  # of `popitem`
        return tuple(unwrap(part) for part in value)
    return value


def _bound(view: Any, home: ValueOwner, root: Any, depth: int) -> Any:
    # A part references its whole, so the stored value stays one object while any part of it is referenced.
    view._owner, view._root, view._depth = home, root, depth  # noqa: SLF001 - own classes, without arguments
    return view


def _fill(view: Any, value: Any) -> None:
    if isinstance(value, dict):
        dict.update(view, {name: _part(part, view) for name, part in value.items()})
    else:
        list.extend(view, [_part(part, view) for part in value])


def _part(value: Any, of: Any) -> Any:
    """Return a value as part of a live value."""
    if not isinstance(value, dict | list):
        return value
    home, root, depth = of._owner, of._whole, of._depth + 1  # noqa: SLF001 - the module's own classes
    view = _bound(LiveDict() if isinstance(value, dict) else LiveList(), home, root, depth)
    _fill(view, value)
    return view


def _mutates(method: Any) -> Any:
    """Wrap a mutating method of dict or list, so that the owner calls it. `Any`: the builtins' signatures."""

    @wraps(method)
    def mutator(self: Any, *args: Any, **kwargs: Any) -> Any:
        home: ValueOwner = self._owner
        return home.owner.change(home, self, lambda: method(self, *args, **kwargs))

    return mutator


class _Live:
    """The common part of live dicts and lists."""

    _owner: ValueOwner
    _root: Any
    _depth: int  # 1 for the whole value

    def _adopt(self, value: Any, present: Any = None) -> Any:
        """Return a value as part of this one: a copy, unless it already is one (`x[name] += ...`)."""
        if value is present:
            return value
        normal = json.loads(encode_value(self._owner.key, value, within=self._depth))
        return _part(normal, self)

    @property
    def _whole(self) -> Any:
        return self if self._root is None else self._root

    def __reduce_ex__(self, _protocol: Any) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return unwrap, (unwrap(self),)

    def __copy__(self) -> Any:
        return self.copy()

    def copy(self) -> Any:
        """Return a plain, shallow copy."""
        raise NotImplementedError


class LiveDict(_Live, dict[str, Any]):
    """A dict that reports its changes."""

    __slots__ = ("__weakref__", "_depth", "_home", "_root")

    def copy(self) -> dict[str, Any]:
        """Return a plain, shallow copy."""
        return dict(self)

    def __setitem__(self, name: Any, value: Any) -> None:
        self._assign({name: value})

    def update(self, *others: Any, **fields: Any) -> None:
        """As of any dict."""
        self._assign(dict(*others, **fields))

    def __ior__(self, other: Any) -> LiveDict:  # type: ignore[override,misc]  # `|` gives a plain dict
        self._assign(dict(other))
        return self

    def setdefault(self, name: Any, default: Any = None) -> Any:
        """As of any dict."""
        if name not in self:
            self._assign({name: default})
        return self[name]

    def _assign(self, fields: dict[Any, Any]) -> None:
        named = {self._name(name): value for name, value in fields.items()}
        self._store({name: self._adopt(value, self.get(name)) for name, value in named.items()})

    def _name(self, name: Any) -> str:
        """Return a name as JSON stores it: 1 becomes "1"."""
        if isinstance(name, str):
            return name
        [text] = json.loads(encode_value(self._owner.key, {name: None}))
        return str(text)

    @_mutates
    def _store(self, parts: dict[str, Any]) -> None:
        dict.update(self, parts)

    __delitem__ = _mutates(dict.__delitem__)
    clear = _mutates(dict.clear)
    pop = _mutates(dict.pop)
    popitem = _mutates(dict.popitem)


class LiveList(_Live, list[Any]):
    """A list that reports its changes."""

    __slots__ = ("__weakref__", "_depth", "_home", "_root")

    def copy(self) -> list[Any]:
        """Return a plain, shallow copy."""
        return list(self)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            self._set(index, [self._adopt(part) for part in value])
        else:
            self._set(index, self._adopt(value, self[index]))

    def append(self, value: Any) -> None:
        """As of any list."""
        self._extend([self._adopt(value)])

    def extend(self, values: Iterable[Any]) -> None:
        """As of any list."""
        self._extend([self._adopt(value) for value in list(values)])

    def insert(self, index: Any, value: Any) -> None:
        """As of any list."""
        self._insert(index, self._adopt(value))

    def __iadd__(self, values: Iterable[Any]) -> LiveList:  # type: ignore[misc]  # `+` gives a plain list
        self.extend(values)
        return self

    def __imul__(self, times: Any) -> LiveList:  # type: ignore[misc]  # `*` gives a plain list
        copies = [part for _ in range(times - 1) for part in unwrap(self)]
        self.extend(copies) if times > 0 else self.clear()
        return self

    _set = _mutates(list.__setitem__)
    _extend = _mutates(list.extend)
    _insert = _mutates(list.insert)
    __delitem__ = _mutates(list.__delitem__)
    pop = _mutates(list.pop)
    remove = _mutates(list.remove)
    clear = _mutates(list.clear)
    sort = _mutates(list.sort)
    reverse = _mutates(list.reverse)
