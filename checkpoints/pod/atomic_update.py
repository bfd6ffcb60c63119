"""`pod.set`: atomic changes deep inside a value.

    pod.set["a"]["b"] += 1
    pod.set["a"]["list"].append(2)
    del pod.set["a"]["list"][0:1]
    pod.set.update(b=1)

Each line is one operation, which the process that owns the store carries out: the same code works on a POD
and, from another process, on a SharedPOD, without a lock.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from checkpoints.errors import StoreError
from checkpoints.pod.live_values import unwrap

_IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, f"i{name}")
    for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"
    )
}  # fmt: skip
#: Methods that may be called: on the whole store (a mapping, too), and on the dicts and lists in it.
_METHODS: dict[type, frozenset[str]] = {
    MutableMapping: frozenset({"clear", "get", "pop", "popitem", "setdefault", "update"}),
    MutableSequence: frozenset(
        {"append", "clear", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"}
    ),
}


class ApplyUpdate(Protocol):
    """Make one update in the process that owns the store."""

    def __call__(self, path: Sequence[Any], operation: str, arguments: Sequence[Any]) -> Any:
        """Make the update at `path`: a key, then names and indexes; empty for a method of the whole store."""


def apply_update(container: Any, path: Sequence[Any], operation: str, arguments: Sequence[Any]) -> Any:
    """Make an update at the end of a path into `container`.

    Returns:
        The result of a called method, as plain values.

    Raises:
        KeyError, IndexError, TypeError: the path leads nowhere, or its end has no such operation.
    """
    if operation == "call":
        return _call(_descend(container, path), *arguments)
    *way, last = path
    container = _descend(container, way)
    if operation == "set":
        container[last] = arguments[0]
    elif operation == "del":
        del container[last]
    else:
        if operation not in _IN_PLACE:
            raise StoreError(f"{operation!r} is not an operation of `set`")
        container[last] = _IN_PLACE[operation](container[last], arguments[0])
    return None


def _descend(container: Any, path: Iterable[Any]) -> Any:
    for step in path:
        container = container[step]
    return container


def _call(target: Any, name: str, arguments: Sequence[Any], fields: dict[str, Any]) -> Any:
    for kind, methods in _METHODS.items():
        if isinstance(target, kind) and name in methods:
            return unwrap(getattr(target, name)(*arguments, **fields))
    raise AttributeError(f"{type(target).__name__} has no {name!r} that may be called here")


def _spell_out(value: Any) -> Any:
    """Return an iterable as a dict or list, which can be sent to another process; other values unchanged."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


class _Applied:
    """The result of an in-place operator. Assigning it does nothing: the update was made already."""


_APPLIED = _Applied()


class PathProxy:
    """A place inside a store; each operation on it is atomic.

    Args:
        apply_update: makes the updates.
        path: from the store to the place.
    """

    __slots__ = ("_apply", "_path")

    def __init__(self, apply_update: ApplyUpdate, path: tuple[Any, ...] = ()) -> None:
        self._apply = apply_update
        self._path = path

    def __getitem__(self, step: Any) -> PathProxy:
        return PathProxy(self._apply, (*self._path, step))

    def __setitem__(self, step: Any, value: Any) -> None:
        if value is not _APPLIED:
            value = _spell_out(value) if isinstance(step, slice) else value
            self._apply((*self._path, step), "set", [value])

    def __delitem__(self, step: Any) -> None:
        self._apply((*self._path, step), "del", [])

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self._call, name)

    def __iter__(self) -> NoReturn:
        raise TypeError("`set` only changes; read with pod[key]")

    def _call(self, name: str, /, *arguments: Any, **fields: Any) -> Any:
        if name in ("extend", "update"):
            arguments = tuple(map(_spell_out, arguments))
        return self._apply(self._path, "call", [name, arguments, fields])

    def _in_place(self, name: str, other: Any) -> Any:
        self._apply(self._path, name, [_spell_out(other)])
        return _APPLIED


def _operator(name: str) -> Callable[[PathProxy, Any], Any]:
    return lambda self, other: self._in_place(name, other)


for _name in _IN_PLACE:
    setattr(PathProxy, f"__i{_name}__", _operator(_name))
