"""Call a user's function with each batch: the simplest custom transport.

The function keeps the promises of `Transport.write`: when it returns, the target has the batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.models import Batch, WriteResult
from pillows.options import Options, OutputOptions
from pillows.transports.base import AppendOnlyTransport


class PythonConnection(Options):
    """A function that writes.

    Attributes:
        function: `module:function`; gets each batch, and returns None or a `WriteResult`.
    """

    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")


class PythonOutput(OutputOptions):
    """An output has no settings."""


class PythonTransport(AppendOnlyTransport):
    """Calls a function; see the module."""

    TYPE: ClassVar[str] = "python"
    Connection: ClassVar[type[Options]] = PythonConnection
    Output: ClassVar[type[OutputOptions]] = PythonOutput

    def __init__(
        self, name: str, key: TailKey, connection: PythonConnection, outputs: Mapping[str, PythonOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._function = _find_function(connection.function)

    def check(self) -> str:
        """Return the name of the function; a function cannot be checked further."""
        return f"calls {self.connection.function}"

    def write(self, batch: Batch) -> WriteResult:
        """Call the function.

        Raises:
            ConfigError: it returned something else than None or a `WriteResult`.
        """
        result = self._function(batch)
        if result is None:
            return WriteResult()
        if not isinstance(result, WriteResult):
            raise ConfigError(
                f"{self.connection.function} returned {type(result).__name__}.",
                remedy="let it return None, or a pillows.WriteResult",
            )
        return result


def _find_function(path: str) -> Callable[[Batch], Any]:
    module, _, name = path.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{path!r} can't be imported: {error}",
            remedy="write it `module:function`, and list the module's folder in `daemon.plugins_path`",
        ) from error
    if not callable(function):
        raise ConfigError(
            f"{path!r} is not a function but a {type(function).__name__}", remedy="name a function"
        )
    found: Callable[[Batch], Any] = function
    return found
