"""What is wrong with a configuration: every mistake with its place, and what to do about it.

An operator who mends a file wants to see all of it at once, so reading, checking and merging collect
`Mistake`s and raise them together at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pillows.errors import ConfigError
from pillows.redaction import Redactor, redact_address

#: Where a value stands: keys of mappings and indices of lists, from the root.
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        file: the file, as the operator named it.
        line: from 1; 0 where the whole file is meant.
        column: from 1; 0 where the whole file or line is meant.
        path: the key path, such as `pillows.cases.transport[0].index`; empty for the whole file.
        message: what is wrong.
        remedy: what to do about it.
    """

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    message: str
    remedy: str

    def __str__(self) -> str:
        """`file:line: key.path: what is wrong; remedy`."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.path}: {self.message}" if self.path else self.message
        return printable(f"{place}: {what}; {self.remedy}")


class ConfigErrors(ConfigError):
    """The configuration has mistakes.

    Args:
        errors: all of them.
        secrets: texts to keep out of what is said.

    Attributes:
        errors: the mistakes by file and line, with nothing secret in their messages.
    """

    def __init__(self, errors: Iterable[Mistake], secrets: Iterable[str] = ()) -> None:
        known = Redactor(secrets)
        masked = {replace(each, message=known.redact(redact_address(each.message))) for each in errors}
        self.errors = sorted(masked, key=lambda e: (e.file, e.line, e.column, e.path, e.message))
        count = len(self.errors)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the configuration:")

    def __str__(self) -> str:
        """A heading, then one line for each mistake."""
        return "\n".join([self.args[0], *(f"  {error}" for error in self.errors)])


def dotted(path: Path) -> str:
    """A key path as an operator reads it: `pillows.cases.transport[0].index`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def printable(text: str) -> str:
    """A text that every terminal and log can take: no lone surrogates, no control characters."""
    encoded = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in encoded)
