"""Does what loading a configuration must not do: importing the operator's python functions."""

from __future__ import annotations

import inspect
import pathlib
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from daemon.config.models import Config, PillowConfig
from daemon.config.pipeline import FilterOptions, StepOptions
from daemon.config.plugins import add_plugins, code_digest, find_function, find_named
from daemon.config.problems import ConfigProblem, KeyPath
from pillows.errors import ConfigError
from pillows.suggest import find_similar


def check_imports(config: Config) -> list[ConfigProblem]:
    """A problem for every function of an enabled pillow that cannot be found.

    Imports the modules, so it is for `check` and the start of the daemon.
    """
    add_plugins(config.daemon.plugins_path)
    found = []
    enabled = {name: pillow for name, pillow in config.pillows.items() if pillow.enabled}
    for name, pillow in enabled.items():
        for path, part in _functions(("pillows", name), pillow):
            problem = _imported(config, path, part)
            if problem:
                found.append(problem)
    return found


def code_digests(pillow: PillowConfig, folders: Sequence[pathlib.Path]) -> list[str]:
    """Digests of the modules that a pillow's functions stand in, in the order of its pipeline.

    Raises:
        ConfigError: a function can't be found.
    """
    return [code_digest(_module(part, folders)) for _, part in _functions((), pillow)]


def _module(part: FilterOptions | StepOptions, folders: Sequence[pathlib.Path]) -> str:
    """The module that was named; of a registered function the one that it was written in."""
    found: Any = find_named(_kind(part), python=part.python, name=part.name, folders=folders)
    if part.python is not None:
        return part.python.partition(":")[0]
    while isinstance(found, partial):
        found = found.func
    found = inspect.unwrap(found)
    return str(getattr(found, "__module__", None) or type(found).__module__)


def _kind(part: FilterOptions | StepOptions) -> str:
    return "filter" if isinstance(part, FilterOptions) else "transform"


def _functions(path: KeyPath, pillow: PillowConfig) -> Iterator[tuple[KeyPath, FilterOptions | StepOptions]]:
    if pillow.filter is not None and pillow.filter.jmespath is None:
        yield (*path, "filter"), pillow.filter
    for index, step in enumerate(pillow.steps):
        at = (*path, "transform", index) if isinstance(pillow.transform, tuple) else (*path, "transform")
        if step.is_python:
            yield at, step


def _imported(config: Config, path: KeyPath, part: FilterOptions | StepOptions) -> ConfigProblem | None:
    at = (*path, "python" if part.python is not None else "name")
    folders = config.daemon.plugins_path
    try:
        find_function(_kind(part), python=part.python, name=part.name, args=part.args, folders=folders)
    except ConfigError as error:
        remedy = _similar(part.python) if part.python else ""
        return config.problem(at, error.args[0], remedy or error.remedy or "correct it")
    except Exception as error:  # noqa: BLE001 - a module of the operator's may raise anything
        message = f"{part.python or part.name!r} can't be imported: {type(error).__name__}: {error}"
        return config.problem(at, message, "correct the module")
    return None


def _similar(function: str) -> str:
    """The remedy where the module was found and only the function's name is wrong."""
    module_name, _, name = function.partition(":")
    module = sys.modules.get(module_name)
    names = [each for each in vars(module) if callable(vars(module)[each])] if module else []
    similar = find_similar(name, names)
    return f"did you mean `{module_name}:{similar}`?" if similar else ""
