"""The problems of a configuration, each with its place and a remedy.

An operator who corrects a file wants to see every problem at once. So each phase of loading returns
`(value, problems)`, and `load` raises the problems of all phases together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from daemon.printable import printable
from pillows.errors import ConfigError
from pillows.redaction import Redactor, redact_address

#: The keys of mappings and indices of lists that lead to a value, from the root.
KeyPath = tuple[str | int, ...]

_Value = TypeVar("_Value")


class Place(Struct, frozen=True, kw_only=True, order=True):
    """A place in a file.

    Attributes:
        file: the file, as the operator named it.
        line: from 1; 0 for the whole file.
        column: from 1; 0 for the whole file or line.
    """

    file: str
    line: int = 0
    column: int = 0


class ConfigProblem(Struct, frozen=True, kw_only=True):
    """One problem of a configuration.

    Attributes:
        place: where to correct it.
        path: the keys that lead there; empty for the whole file.
        message: the problem.
        remedy: what to do about it.
    """

    place: Place
    path: KeyPath = ()
    message: str
    remedy: str

    @property
    def key(self) -> str:
        """The key path as text; see `format_path`."""
        return format_path(self.path)

    def __str__(self) -> str:
        """Return `file:line: key.path: message; remedy`."""
        place = f"{self.place.file}:{self.place.line}" if self.place.line else self.place.file
        message = f"{self.key}: {self.message}" if self.path else self.message
        return printable(f"{place}: {message}; {self.remedy}")


class ProblemCollector(list[ConfigProblem]):
    """The problems that a phase has found so far."""

    def add(self, place: Place, path: KeyPath, message: str, remedy: str) -> None:
        """Add a problem; see `ConfigProblem`."""
        self.append(ConfigProblem(place=place, path=path, message=message, remedy=remedy))

    def take(self, result: tuple[_Value, Iterable[ConfigProblem]]) -> _Value:
        """Add the problems of a phase's result, and return its value."""
        value, problems = result
        self.extend(problems)
        return value


class ConfigErrors(ConfigError):
    """The configuration has problems.

    Args:
        problems: all of them.
        secrets: texts that no message may show.

    Attributes:
        problems: the distinct problems by file and line, with every secret masked.
    """

    def __init__(self, problems: Iterable[ConfigProblem], secrets: Iterable[str] = ()) -> None:
        redactor = Redactor(secrets)
        masked = {replace(p, message=redactor.redact(redact_address(p.message))) for p in problems}
        self.problems = sorted(masked, key=lambda p: (p.place, p.key, p.message))
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the configuration:")

    def __str__(self) -> str:
        """Return a heading, then one line for each problem."""
        return "\n".join([self.args[0], *(f"  {problem}" for problem in self.problems)])


def format_path(path: KeyPath) -> str:
    """Return a key path as operators read it: `pillows.cases.transport[0].index`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
