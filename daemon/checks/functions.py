"""Import the Python functions of pillows, which loading a configuration does not."""

from __future__ import annotations

import sys

from daemon.config.models import Config
from daemon.config.pipeline import FunctionOptions
from daemon.config.plugin_modules import add_folders
from daemon.config.plugins import find_function
from daemon.config.problems import ConfigProblem, KeyPath
from pillows.errors import ConfigError
from pillows.suggest import find_similar
from pillows.user_code import confine, describe_error


def check_functions(config: Config) -> list[ConfigProblem]:
    """Return a problem for every function of an enabled pillow that cannot be found.

    The modules are imported, so this is for `check` and the start of the daemon.
    """
    add_folders(config.daemon.plugins_path)
    enabled = {name: pillow for name, pillow in config.pillows.items() if pillow.enabled}
    found = (
        _check_function(config, ("pillows", name, *below, *path), part)
        for name, pillow in enabled.items()
        for below, definition in zip(((), ("next",)), pillow.definitions, strict=False)
        for path, part in definition.functions
    )
    return [problem for problem in found if problem is not None]


def _check_function(config: Config, path: KeyPath, part: FunctionOptions) -> ConfigProblem | None:
    path = (*path, "python" if part.python is not None else "name")
    folders = config.daemon.plugins_path
    try:
        find_function(part.kind, python=part.python, name=part.name, args=part.args, folders=folders)
    except ConfigError as error:
        remedy = _suggest_function(part.python) if part.python else ""
        return config.problem(path, error.args[0], remedy or error.remedy or "correct it")
    except BaseException as error:  # noqa: BLE001 - a module of the operator's may raise anything
        reason = describe_error(confine(error), with_text=True)
        message = f"{part.python or part.name!r} can't be imported: {reason}"
        return config.problem(path, message, "correct the module")
    return None


def _suggest_function(function: str) -> str:
    """Return the remedy if the module was found and only the function's name is wrong, else ""."""
    module_name, _, name = function.partition(":")
    module = sys.modules.get(module_name)
    names = [each for each in vars(module) if callable(vars(module)[each])] if module else []
    similar = find_similar(name, names)
    return f"did you mean `{module_name}:{similar}`?" if similar else ""
