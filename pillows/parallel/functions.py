"""Name a user's function, and import it by that name in a worker."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from pillows.errors import ConfigError, PillowError
from pillows.parallel.protocol import to_payload
from pillows.user_code import confine, describe_error

#: Name of a program's main module in a worker. Code under `if __name__ == "__main__":` does not run there.
_MAIN = "__worker__"
_REMEDY = "write it with `def` at the top of a module"


class FunctionName(msgspec.Struct, frozen=True, array_like=True):
    """The place of a function.

    Attributes:
        module: its module.
        name: its qualified name in the module.
        file: the program's file, if the module is the main one; else "".
    """

    module: str
    name: str
    file: str = ""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FunctionName:
        """Return the place of a function.

        Raises:
            ConfigError: another process could not import it.
        """
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
        if module is None or not name or "<" in name:
            raise ConfigError(f"Another process cannot import {name or function!r}.", remedy=_REMEDY)
        if module != "__main__":
            return cls(module, name)
        file = getattr(sys.modules["__main__"], "__file__", None)
        if file is None:
            raise ConfigError(f"{name} is not defined in a file.", remedy="put the program into a file")
        return cls(module, name, str(Path(file).absolute()))

    def find(self) -> Callable[..., Any]:
        """Import and return the function.

        Raises:
            ConfigError: it cannot be imported here.
        """
        try:
            found: Any
            first, *rest = self.name.split(".")
            found = _run_main(self.file)[first] if self.file else getattr(import_module(self.module), first)
            for part in rest:
                found = getattr(found, part)
        except BaseException as error:
            raise ConfigError(
                f"A worker cannot import {self.name} of {self.file or self.module}: "
                f"{describe_error(confine(error), with_text=True)}",
                remedy=_REMEDY,
            ) from error
        function: Callable[..., Any] = found
        return function


class FunctionSetup(msgspec.Struct, frozen=True, array_like=True):
    """The functions that a worker calls.

    Attributes:
        function: called with the connection, if there is one, and with each task's values.
        connect: called once; returns the worker's connection. None for no connection.
    """

    function: FunctionName
    connect: FunctionName | None = None


class FunctionWork:
    """Calls a function for each task, with a connection of this process.

    Args: setup: the functions.

    Raises:
        ConfigError: the functions cannot be imported.
        PillowError: the connection cannot be opened.
    """

    def __init__(self, setup: FunctionSetup) -> None:
        self._function = setup.function.find()
        self._connection: tuple[Any, ...] = ()
        if setup.connect is not None:
            self._connection = (_call(setup.connect.find()),)

    def run(self, payload: msgspec.Raw) -> Any:
        """Call the function; return its result as MessagePack.

        Raises:
            PillowError: the function raised an error, which is converted if it is another one; or MessagePack
                cannot hold the result.
        """
        return _call(self._encode, *self._connection, *msgspec.msgpack.decode(payload))

    def _encode(self, *values: Any) -> msgspec.Raw:
        return to_payload(self._function(*values))

    def close(self) -> None:
        """Close the connection, if it has `close`."""
        for connection in self._connection:
            if callable(close := getattr(connection, "close", None)):
                close()


@cache  # so that all its functions share one set of globals
def _run_main(file: str) -> dict[str, Any]:
    return runpy.run_path(file, run_name=_MAIN)


def _call(function: Callable[..., Any], *values: Any) -> Any:
    try:
        return function(*values)
    except PillowError:
        raise
    except BaseException as error:
        raise PillowError(describe_error(confine(error), with_text=True)) from error
