"""A finding: what `store check` reports about one file of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """A fault in a store's files.

    Attributes:
        file: the file's name.
        line: the number of the line, from 1; None for the whole file.
        problem: the fault.
        harmless: whether the store can be opened without a loss nevertheless (a repeated key).
    """

    file: str
    problem: str
    line: int | None = None
    harmless: bool = False

    def __str__(self) -> str:
        """Name the place and the problem."""
        place = self.file if self.line is None else f"{self.file} line {self.line}"
        return f"{place}: {self.problem}"


def describe_damage(path: Path, findings: Sequence[Finding]) -> str:
    """Return the error message for a store with findings."""
    first, *others = findings
    more = f" (and {len(others)} more)" if others else ""
    return (
        f"{path}/{first}{more}. Nothing was changed. `pillowd store check {path}` lists what is wrong, "
        f"`pillowd store repair {path} INTO` copies the intact entries."
    )
