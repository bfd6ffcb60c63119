"""Who writes where: an output belongs to one pillow, since a pillow removes what is not its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.config_errors import Mistake, Path
from daemon.yaml_lines import Node
from pillows.options import Options

#: The settings of an output that say which place of its connection it writes.
TARGET_KEYS = ("schema", "index", "table", "file", "database")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That an output of a pillow writes one place of a connection."""

    pillow: str
    path: Path
    connection: str
    target: tuple[str, ...]
    at: Node


def target(output: str, options: Options, connection: Options | None) -> dict[str, str]:
    """The place that an output writes, by the keys that say so; empty where its transport knows none.

    Args:
        output: the output's name, which is the place's where none is set.
        options: its validated settings.
        connection: those of its connection, which may hold a default (a schema); None if invalid.
    """
    values = options.model_dump(by_alias=True)
    defaults = connection.model_dump(by_alias=True) if connection else {}
    return {key: str(values[key] or defaults.get(key) or output) for key in TARGET_KEYS if key in values}


def compare(found: Sequence[Claim]) -> list[Mistake]:
    """A mistake for every place that is claimed twice, at the second claim, naming the first."""
    first: dict[tuple[str, tuple[str, ...]], Claim] = {}
    mistakes = []
    for claim in found:
        other = first.setdefault((claim.connection, claim.target), claim)
        if other is not claim:
            mistakes.append(_conflict(other, claim))
    return mistakes


def _conflict(first: Claim, second: Claim) -> Mistake:
    place = first.at.shown_at
    what = f"`{'.'.join(second.target)}` of connection `{second.connection}`"
    who = f"`{first.pillow}` ({place.file} line {place.line})"
    return second.at.mistake(
        second.path,
        f"pillow `{second.pillow}` writes {what}, which belongs to {who}",
        "give one of the two another place",
    )
