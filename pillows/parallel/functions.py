"""A user's function in worker processes: its name, which is sent, and its import there."""

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

#: The name of a program's main module in a worker: what is under `if __name__ == "__main__":` does not run.
_MAIN = "__worker__"
_REMEDY = "write it with `def` at the top of a module"


class FunctionName(msgspec.Struct, frozen=True, array_like=True):
    """Where a function is found.

    Attributes:
        module: its module.
        name: its name there, with dots for what is in a class.
        file: the program that is to be run for it, if its module is the main one; else empty.
    """

    module: str
    name: str
    file: str = ""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FunctionName:
        """Return where a function is found.

        Raises:
            ConfigError: another process cannot find it.
        """
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
        if module is None or not name or "<" in name:
            raise ConfigError(f"Another process cannot import {name or function!r}.", remedy=_REMEDY)
        if module != "__main__":
            return cls(module, name)
        file = getattr(sys.modules["__main__"], "__file__", None)
        if file is None:
            raise ConfigError(f"{name} was not written in a file.", remedy="write the program into a file")
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
    """What a worker calls.

    Attributes:
        function: called with the connection, if there is one, and with each task's values.
        connect: called once; returns the worker's connection. None: there is none.
    """

    function: FunctionName
    connect: FunctionName | None = None


class FunctionWork:
    """Calls a function for each task, with a connection of this process.

    Args:
        setup: what is called.

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
        """Call the function; return what it returns, as MessagePack.

        Raises:
            PillowError: it raised this, or another error that is told as one; or MessagePack cannot hold
                what it returned.
        """
        return _call(self._encode, *self._connection, *msgspec.msgpack.decode(payload))

    def _encode(self, *values: Any) -> msgspec.Raw:
        return to_payload(self._function(*values))

    def close(self) -> None:
        """Close the connection, if it can be closed."""
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
