"""Checks what loading a configuration must not do: importing the operator's python functions."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator

from daemon.build import add_plugins, import_function
from daemon.config_errors import Mistake, Path
from daemon.config_models import Config, PillowConfig
from pillows.errors import ConfigError


def check_imports(config: Config) -> list[Mistake]:
    """A mistake for every `python:` function of an enabled pillow that cannot be imported.

    Imports the modules, so it is for `check` and the start of the daemon.
    """
    add_plugins(config.daemon.plugins_path)
    found = []
    enabled = {name: pillow for name, pillow in config.pillows.items() if pillow.enabled}
    for name, pillow in enabled.items():
        for path, function in _functions(("pillows", name), pillow):
            mistake = _imported(config, path, function)
            if mistake:
                found.append(mistake)
    return found


def _functions(path: Path, pillow: PillowConfig) -> Iterator[tuple[Path, str]]:
    for key, part in (("filter", pillow.filter), ("transform", pillow.transform)):
        if part is not None and part.python is not None:
            yield (*path, key, "python"), part.python


def _imported(config: Config, path: Path, function: str) -> Mistake | None:
    try:
        import_function(function)
    except ConfigError as error:
        return config.mistake(path, error.args[0], _similar(function) or error.remedy or "correct it")
    except Exception as error:  # noqa: BLE001 - a module of the operator's may raise anything
        message = f"{function!r} can't be imported: {type(error).__name__}: {error}"
        return config.mistake(path, message, "correct the module")
    return None


def _similar(function: str) -> str:
    """The remedy where the module was found and only the function's name is wrong."""
    module_name, _, name = function.partition(":")
    module = sys.modules.get(module_name)
    names = [each for each in vars(module) if callable(vars(module)[each])] if module else []
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean `{module_name}:{close[0]}`?" if close else ""
