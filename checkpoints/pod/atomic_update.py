"""`pod.set`: changes deep inside a value that are one step for everybody else.

    pod.set["a"]["b"] += 1
    pod.set["a"]["list"].append(2)
    del pod.set["a"]["list"][0:1]

Each line is one operation, carried out where the store is: the same code works on a POD and, from
another process, on a SharedPOD, without a lock.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from checkpoints.errors import StoreError
from checkpoints.pod.live_values import unwrap

_IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, f"i{name}")
    for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"
    )
}  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    dict: frozenset({"clear", "get", "pop", "popitem", "setdefault", "update"}),
    list: frozenset(
        {"append", "clear", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"}
    ),
}


class ApplyUpdate(Protocol):
    """Make one update in the process that owns the store."""

    def __call__(self, path: Sequence[Any], operation: str, arguments: Sequence[Any]) -> Any:
        """Make the update at `path`: the key, then names and indexes."""


def apply_update(container: Any, path: Sequence[Any], operation: str, arguments: Sequence[Any]) -> Any:
    """Make an update at the end of a path into `container`.

    Returns:
        What a called method returns, as plain values.

    Raises:
        KeyError, IndexError, TypeError: the path leads nowhere, or its end has no such operation.
    """
    *way, last = path
    for step in way:
        container = container[step]
    if operation == "set":
        container[last] = arguments[0]
    elif operation == "del":
        del container[last]
    elif operation == "call":
        return _call(container[last], *arguments)
    else:
        if operation not in _IN_PLACE:
            raise StoreError(f"there is no operation {operation!r}")
        container[last] = _IN_PLACE[operation](container[last], arguments[0])
    return None


def _call(target: Any, name: str, arguments: Sequence[Any], fields: dict[str, Any]) -> Any:
    for kind, methods in _METHODS.items():
        if isinstance(target, kind) and name in methods:
            return unwrap(getattr(target, name)(*arguments, **fields))
    raise AttributeError(f"{type(target).__name__} has no {name!r} that could be called here")


class _Applied:
    """The result of an in-place operator. Assigning it does nothing: the update was made already."""


_APPLIED = _Applied()


class PathProxy:
    """A place inside a store, where each operation is one step.

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
            self._apply((*self._path, step), "set", [value])

    def __delitem__(self, step: Any) -> None:
        self._apply((*self._path, step), "del", [])

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments, **fields: self._apply(self._path, "call", [name, arguments, fields])

    def __iter__(self) -> NoReturn:
        raise TypeError("`set` only changes; read with pod[key]")

    def _in_place(self, name: str, other: Any) -> Any:
        self._apply(self._path, name, [other])
        return _APPLIED


def _operator(name: str) -> Callable[[PathProxy, Any], Any]:
    return lambda self, other: self._in_place(name, other)


for _name in _IN_PLACE:
    setattr(PathProxy, f"__i{_name}__", _operator(_name))
