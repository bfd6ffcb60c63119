"""Find the handler of each operation."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from daemon.http import routes
from daemon.http.contract import Contract, Operation

#: Called with the `ControlApi` and the operation's arguments by keyword; returns JSON values or an `Answer`.
Handler = Callable[..., Any]


class ContractError(Exception):
    """`openapi.yaml` and `routes/` do not match."""


@cache
def find_handler(operation_id: str, tag: str) -> Handler:
    """Return the handler of one operation; only its module is imported.

    Raises:
        ContractError: there is no such function.
    """
    try:
        module = importlib.import_module(f"{routes.__name__}.{tag}")
    except ModuleNotFoundError as error:
        raise ContractError(f"{operation_id} needs a module daemon/http/routes/{tag}.py: {error}") from error
    handler = _public_functions(module).get(operation_id)
    if handler is None:
        raise ContractError(f"{operation_id} has no function of that name in daemon/http/routes/{tag}.py")
    return handler


def find_all_handlers(contract: Contract, package: ModuleType = routes) -> dict[str, Handler]:
    """Return the handlers of all operations by their id.

    Raises:
        ContractError: an operation has no handler, or a public function of `routes/` no operation.
    """
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    found = {
        (_tag(module), name): each for module in modules for name, each in _public_functions(module).items()
    }
    wanted = {(each.tag, each.id) for each in contract.operations.values()}
    if problems := [f"{tag}.{name} is in `routes/` only" for tag, name in sorted(found.keys() - wanted)] + [
        f"{tag}.{name} is in `openapi.yaml` only" for tag, name in sorted(wanted - found.keys())
    ]:
        raise ContractError("; ".join(problems))
    return {name: handler for (_, name), handler in found.items()}


def handler_of(operation: Operation) -> Handler:
    """Return the handler of an operation; see `find_handler`."""
    return find_handler(operation.id, operation.tag)


def _tag(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _public_functions(module: ModuleType) -> dict[str, Handler]:
    return {
        name: each
        for name, each in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and each.__module__ == module.__name__
    }
