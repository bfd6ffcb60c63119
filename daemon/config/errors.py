"""What is wrong with a configuration: every mistake with its place, and what to do about it.

An operator who mends a file wants to see all of it at once, so reading, checking and merging collect
`Mistake`s and raise them together at the end.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from daemon.config.redaction import MASK, Mask
from pillows.errors import ConfigError

#: Where a value stands: keys of mappings and indices of lists, from the root.
Path = tuple[str | int, ...]

#: Secrets that name a place too; what they say beside the password is worth seeing.
_PLACES = ("dsn", "url")
# A password may hold an `@`, so it ends at the last one before the path.
_USERINFO = re.compile(r"(?<=://)([^/\s:@?#]*):[^/\s?#]*@")
# The address of a webhook often is its password: a query, or a part of the path that nobody could guess.
_UNGUESSABLE = re.compile(r"(?<=[^/]/)[^/?#]{16,}|[?#].*")
_SETTING = re.compile(r"(?i)(\b\w*(?:pass|pwd|token|api_?key|secret)\w*)\s*=\s*('(?:\\.|[^'])*'|[^\s&'\"]+)")


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
        known = Mask(secrets)
        masked = {replace(each, message=known.text(mask(each.message))) for each in errors}
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


def suggest(wrong: str, known: Sequence[str], what: str) -> str:
    """The remedy for a name that is none of the known ones.

    Args:
        wrong: what was written.
        known: what could have been.
        what: the plural of what is named, such as `keys here`.
    """
    if not known:
        return f"there are no {what}"
    listed = f"{what}: {', '.join(known)}"
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"did you mean `{by_lower[close[0]]}`? ({listed})" if close else f"{listed}"


def mask(address: str) -> str:
    """A URL or connection string without its password; the rest of it stays."""
    return _SETTING.sub(rf"\1={MASK}", _USERINFO.sub(rf"\1:{MASK}@", address))


def is_public(secret: str, path: Path) -> bool:
    """Whether a value of a secret type gives nothing away: an address without a password."""
    return path[-1] in _PLACES and masked_secret(secret, path) == secret


def masked_secret(secret: str, path: Path) -> str:
    """How a value of a secret type is shown: of an address what is not secret."""
    if path[-1] not in _PLACES:
        return MASK
    shown = mask(secret)
    return _UNGUESSABLE.sub(MASK, shown) if path[-1] == "url" else shown


def printable(text: str) -> str:
    """A text that every terminal and log can take: no lone surrogates, no control characters."""
    encoded = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in encoded)
