"""Find the operator's own functions: by `module:function`, or by the name they are registered under."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import pkgutil
import sys
import tokenize
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Final

from daemon.config import plugin_modules
from daemon.config.models import PillowConfig
from daemon.config.pipeline import FunctionOptions
from pillows import registry
from pillows.errors import ConfigError
from pillows.user_code import confine, describe_error

#: Name of the transform that `pillowd mirror` configures.
FIT_COLUMNS = "fit_columns"

#: pillowd's functions that configurations call by name. They are imported on demand.
OWN_FUNCTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("transform", FIT_COLUMNS): "daemon.mirror.fit_columns:FitColumns",
}


def import_plugins(folders: Sequence[Path]) -> None:
    """Import every module in these folders, so that they register their parts.

    Raises:
        ConfigError: a module cannot be imported.
    """
    plugin_modules.add_folders(folders)
    for found in pkgutil.iter_modules([str(folder) for folder in folders]):
        try:
            importlib.import_module(found.name)
        except BaseException as error:  # `sys.exit()` in a module must not end the daemon
            raise ConfigError(
                f"the plugin {found.name!r} can't be imported: {describe_error(error, with_text=True)}",
                remedy="correct the module, or remove its folder from `daemon.plugins_path`",
            ) from error


def find_function(
    kind: str,
    *,
    python: str | None,
    name: str | None,
    args: Mapping[str, Any],
    folders: Sequence[Path],
) -> Callable[..., Any]:
    """Return the function of a filter, a trigger or a transform's step, bound to its arguments.

    Args:
        kind: `filter`, `trigger` or `transform`.
        python: `module:function`; None if it has a name.
        name: its name in `@register(kind, name)`, or in the entry point group `pillowd.<kind>s`.
        args: keyword arguments. A function gets them with each call; a class is made with them once.
        folders: folders of modules that may register it.

    Raises:
        ConfigError: there is no such function.
    """
    found = find_named(kind, python=python, name=name, folders=folders)
    if inspect.isclass(found):
        return _instantiate(found, args)
    return partial(found, **args) if args else found


def find_named(
    kind: str, *, python: str | None, name: str | None, folders: Sequence[Path]
) -> Callable[..., Any]:
    """Return the function or class itself, without its arguments; see `find_function`."""
    plugin_modules.add_folders(folders)
    return import_function(python) if python is not None else _find_registered(kind, name or "", folders)


def digest_module(module: str) -> str:
    """Return a digest of an imported module's text without comments and blank lines; "" if it has no text.

    The modules that it imports do not count.
    """
    text = plugin_modules.get_text(module)
    return _digest_installed(module) if text is None else _digest_text(text)


@cache  # the file may change later, the code that runs does not
def _digest_installed(module: str) -> str:
    return _digest_text(_read_text(module))


@lru_cache(maxsize=256)
def _digest_text(text: str) -> str:
    return hashlib.sha256("\n".join(_list_code_lines(text)).encode()).hexdigest()[:16] if text else ""


def _read_text(module: str) -> str:
    """Return the text of an imported module as its file is now; "" if it has none."""
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):  # made at run time, or not Python
        return ""


def digest_functions(pillow: PillowConfig, folders: Sequence[Path]) -> list[str]:
    """Return the digests of the modules of a pillow's functions, in the order of its pipeline.

    Raises:
        ConfigError: a function can't be found.
    """
    return [digest_module(each) for each in list_modules(pillow, folders)]


def list_modules(pillow: PillowConfig, folders: Sequence[Path]) -> list[str]:
    """Return the modules of a pillow's functions, in the order of its pipeline.

    Raises:
        ConfigError: a function can't be found.
    """
    return [_find_module(part, folders) for _, part in pillow.functions]


def is_outdated(module: str) -> bool:
    """Return whether the file of an installed module has changed since the module was imported.

    Only a restart imports it again.
    """
    if plugin_modules.is_plugin(module):
        return False
    return _digest_text(_read_text(module)) != _digest_installed(module)


def _find_module(part: FunctionOptions, folders: Sequence[Path]) -> str:
    """Return the module that was named; for a registered function, the module it was written in."""
    found: Any = find_named(part.kind, python=part.python, name=part.name, folders=folders)
    if part.python is not None:
        return part.python.partition(":")[0]
    while isinstance(found, partial):
        found = found.func
    found = inspect.unwrap(found)
    return str(getattr(found, "__module__", None) or type(found).__module__)


def _list_code_lines(text: str) -> list[str]:
    """Return the lines of a module without comments and blank lines."""
    lines: dict[int, str] = dict(enumerate(text.splitlines(), 1))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row] = lines[row][:column].rstrip()
        elif token.type == tokenize.NL and not lines.get(row, "").strip():
            lines.pop(row, None)  # never a line of a string: there are no such tokens in it
    return list(lines.values())


def _find_registered(kind: str, name: str, folders: Sequence[Path]) -> Callable[..., Any]:
    if (kind, name) in OWN_FUNCTIONS:
        return import_function(OWN_FUNCTIONS[kind, name])
    found = registry.registered(kind, name)
    if found is None:
        import_plugins(folders)
        found = registry.registered(kind, name)
    if found is None:
        listed = ", ".join(registry.names(kind)) or "none yet"
        raise ConfigError(
            f"there is no {kind} {name!r}",
            remedy=f"register it in a module of `daemon.plugins_path`; registered: {listed}",
        )
    function: Callable[..., Any] = found
    return function


def _instantiate(cls: type, args: Mapping[str, Any]) -> Callable[..., Any]:
    try:
        instance = cls(**args)
    except BaseException as error:
        raise ConfigError(
            f"{cls.__qualname__} can't be made: {describe_error(confine(error), with_text=True)}",
            remedy="give it the `args` that it takes",
        ) from error
    if not callable(instance):
        raise ConfigError(f"{cls.__qualname__} can't be called", remedy="give it a method `__call__`")
    function: Callable[..., Any] = instance
    return function


def import_function(path: str) -> Callable[..., Any]:
    """Import and return the function that `module:function` names.

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
    except BaseException as error:
        reason = describe_error(confine(error), with_text=True)
        raise ConfigError(f"{path!r} can't be imported: {reason}", remedy="correct the module") from error
    if not callable(function):
        raise ConfigError(f"{path!r} is not a function but a {type(function).__name__}")
    loaded: Callable[..., Any] = function
    return loaded
