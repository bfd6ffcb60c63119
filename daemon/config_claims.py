"""Who writes where: an output belongs to one pillow, since a pillow removes what is not its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon.config_errors import Mistake, Path
from daemon.yaml_lines import Node
from pillows.options import Options

#: The settings of an output that say which place of its connection it writes.
TARGET_KEYS = ("schema", "index", "table", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That an output of a pillow writes one place of a connection."""

    pillow: str
    path: Path
    connection: str
    target: tuple[str, ...]
    at: Node


def claims(
    pillow: str,
    connection: str,
    outputs: Mapping[str, Options],
    written: Sequence[tuple[str, Path, Node]],
    options: Options | None,
) -> list[Claim]:
    """What a pillow's entry claims.

    Args:
        pillow: the pillow's name.
        connection: the entry's connection.
        outputs: the validated outputs by name.
        written: name, path and text of each output.
        options: the connection's settings, which may hold a default (a schema); None if invalid.
    """
    found = []
    defaults = options.model_dump(by_alias=True) if options else {}
    for name, path, node in written:
        values = outputs[name].model_dump(by_alias=True)
        keys = [key for key in TARGET_KEYS if key in values]
        target = tuple(str(values[key] or defaults.get(key) or name) for key in keys)
        at = next((each for key in reversed(keys) if (each := node.find((key,)))), node)
        if target:
            found.append(Claim(pillow=pillow, path=path, connection=connection, target=target, at=at))
    return found


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
