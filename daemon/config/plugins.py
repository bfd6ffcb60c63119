"""Finds the operator's own code: functions by their path, and whatever modules register by name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import pkgutil
import sys
import tokenize
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from pillows import registry
from pillows.errors import ConfigError


def add_plugins(folders: Sequence[Path]) -> None:
    """Makes modules in these folders importable."""
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def import_plugins(folders: Sequence[Path]) -> None:
    """Imports every module in these folders, so that what they register is known.

    Raises:
        ConfigError: a module cannot be imported.
    """
    add_plugins(folders)
    for found in pkgutil.iter_modules([str(folder) for folder in folders]):
        try:
            importlib.import_module(found.name)
        except Exception as error:
            raise ConfigError(
                f"the plugin {found.name!r} can't be imported: {type(error).__name__}: {error}",
                remedy="correct the module, or take it out of `daemon.plugins_path`",
            ) from error


def find_function(
    kind: str,
    *,
    python: str | None,
    name: str | None,
    args: Mapping[str, Any],
    folders: Sequence[Path],
) -> Callable[[Any], Any]:
    """The function that a filter or a step of a transform names, with its arguments.

    Args:
        kind: `filter` or `transform`.
        python: `module:function`; or
        name: what `@register(kind, name)` or an entry point of the group `pillowd.<kind>s` has.
        args: keyword arguments. A function gets them with each call; a class is made with them once.
        folders: where modules may register something.

    Raises:
        ConfigError: there is no such function.
    """
    found = find_named(kind, python=python, name=name, folders=folders)
    if inspect.isclass(found):
        return _made(found, args)
    return partial(found, **args) if args else found


def find_named(
    kind: str, *, python: str | None, name: str | None, folders: Sequence[Path]
) -> Callable[..., Any]:
    """The function or class itself, without its arguments; see `find_function`."""
    add_plugins(folders)
    return import_function(python) if python is not None else _registered(kind, name or "", folders)


@cache  # the file may change later, the code that runs does not
def code_digest(module: str) -> str:
    """A digest of an imported module's text, but for comments and blank lines; "" where it has none.

    What the module imports is not part of it.
    """
    try:
        text = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):  # made at run time, or no Python
        return ""
    return hashlib.sha256("\n".join(_code(text)).encode()).hexdigest()[:16]


def _code(text: str) -> list[str]:
    """The lines of a module without its comments, and without those that are blank then."""
    lines: dict[int, str] = dict(enumerate(text.splitlines(), 1))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row] = lines[row][:column].rstrip()
        elif token.type == tokenize.NL and not lines.get(row, "").strip():
            lines.pop(row, None)  # outside of any string: within one there are no such tokens
    return list(lines.values())


def _registered(kind: str, name: str, folders: Sequence[Path]) -> Callable[..., Any]:
    found = registry.registered(kind, name)
    if found is None:
        import_plugins(folders)
        found = registry.registered(kind, name)
    if found is None:
        listed = ", ".join(registry.names(kind)) or "none"
        raise ConfigError(
            f"there is no {kind} {name!r}",
            remedy=f"register it in a module of `daemon.plugins_path`; known are: {listed}",
        )
    function: Callable[..., Any] = found
    return function


def _made(made_of: type, args: Mapping[str, Any]) -> Callable[[Any], Any]:
    try:
        instance = made_of(**args)
    except Exception as error:
        raise ConfigError(
            f"{made_of.__qualname__} can't be made: {type(error).__name__}: {error}",
            remedy="give it the `args` that it takes",
        ) from error
    if not callable(instance):
        raise ConfigError(f"{made_of.__qualname__} can't be called", remedy="give it a method `__call__`")
    function: Callable[[Any], Any] = instance
    return function


def import_function(path: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    try:
        function: Any = importlib.import_module(module_name)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"{path!r} can't be imported: {error}",
            remedy="write it `module:function`, and list the module's folder in `daemon.plugins_path`",
        ) from error
    if not callable(function):
        raise ConfigError(f"{path!r} is no function but {type(function).__name__}")
    loaded: Callable[..., Any] = function
    return loaded
