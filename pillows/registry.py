"""Find what configuration names: transports by type, and everything that plugins register.

A name is looked up in this order:

1. what a user's module registered: `@register("transport", "mytype")`;
2. for transports, the file or folder of that name in `pillows/transports/`, except `base.py` and `common/`;
3. the entry-point group `pillowd.transports` (`pillowd.filters`, ...) of installed distributions.

A transport's module, and with it the client library it needs, is only imported when its type is asked
for, so a daemon that writes to SQLite never loads Elasticsearch's client.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pillows.transports
from pillows.errors import ConfigError
from pillows.options import OutputOptions
from pillows.suggest import suggest
from pillows.transports.base import Transport

_Named = TypeVar("_Named")
_registered: dict[tuple[str, str], Any] = {}


def register(kind: str, name: str) -> Callable[[_Named], _Named]:
    """Register a class or function of a user's module under a name that configuration can use.

    Args:
        kind: `filter`, `trigger`, `transform` or `transport`.
        name: what configuration calls it.

    Raises:
        ConfigError: something else has that name already.
    """

    def decorate(thing: _Named) -> _Named:
        known = _registered.setdefault((kind, name), thing)
        if known is not thing and _place(known) != _place(thing):
            raise ConfigError(
                f"Two things are registered as {kind} {name!r}: {_place(known)} and {_place(thing)}.",
                remedy="give one of them another name",
            )
        _registered[kind, name] = thing
        return thing

    return decorate


def take_out(is_taken: Callable[[str], bool]) -> dict[tuple[str, str], Any]:
    """Forget the registrations of some modules.

    Args:
        is_taken: decides by the name of a module.

    Returns: The removed entries, for `put_back`.
    """
    taken = {key: thing for key, thing in _registered.items() if is_taken(_module(thing))}
    for key in taken:
        del _registered[key]
    return taken


def put_back(taken: Mapping[tuple[str, str], Any]) -> None:
    """Register again what `take_out` has returned."""
    _registered.update(taken)


def registered(kind: str, name: str) -> Any | None:
    """Return the object that `@register` or an entry point has under a name; None if there is none.

    Raises:
        ConfigError: the entry point's module cannot be imported.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]
    points = entry_points(group=f"pillowd.{kind}s", name=name)
    return _load(kind, next(iter(points))) if points else None


def names(kind: str) -> list[str]:
    """List every name of a kind that `@register` or an entry point has, sorted."""
    plugged = {point.name for point in entry_points(group=f"pillowd.{kind}s")}
    return sorted(plugged | {name for its_kind, name in _registered if its_kind == kind})


def transport_types() -> list[str]:
    """List every `type` that a transport's connection may have, sorted; import none of them."""
    return sorted({*_files(), *names("transport")})


def has_transport(type: str) -> bool:
    """Return whether a connection may have a `type`; import nothing.

    Installed distributions are asked last: reading what each of them declares takes 5 ms and more.
    """
    return ("transport", type) in _registered or type in _files() or type in names("transport")


def transport(type: str) -> type[Transport]:
    """Return the transport class of a connection's `type`.

    Raises:
        ConfigError: there is no such type, or its class is not a valid transport.
    """
    found = _registered.get(("transport", type)) or _from_file(type) or registered("transport", type)
    if found is None:
        raise ConfigError(
            f"There is no transport of type {type!r}.", remedy=suggest(type, transport_types(), "types")
        )
    if not (inspect.isclass(found) and issubclass(found, Transport)):
        raise ConfigError(
            f"{_place(found)} is registered as the transport {type!r}, but is not a subclass of Transport."
        )
    if not issubclass(found.Output, OutputOptions):
        raise ConfigError(f"{_place(found)}.Output does not inherit from OutputOptions.")
    return found


def _files() -> list[str]:
    found = pkgutil.iter_modules(pillows.transports.__path__)
    return [module.name for module in found if module.name not in ("base", "common")]


def _from_file(name: str) -> type[Transport] | None:
    if name not in _files():
        return None
    module = importlib.import_module(f"pillows.transports.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{module.__name__}.transport")
    own = [
        thing
        for _, thing in inspect.getmembers(module, inspect.isclass)
        if issubclass(thing, Transport)
        and thing.__module__ == module.__name__
        and not inspect.isabstract(thing)
    ]
    if len(own) != 1:
        raise ConfigError(f"{module.__name__} must define exactly one transport, not {len(own)}.")
    return own[0]


def _load(kind: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The {kind} {point.name!r} is declared as {point.value}, which cannot be imported: {error}."
        ) from error


def _module(thing: Any) -> str:
    while isinstance(thing, partial):
        thing = thing.func
    return str(getattr(thing, "__module__", ""))


def _place(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', repr(thing))}"
