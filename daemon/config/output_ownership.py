"""Who writes where: an output belongs to one pillow, since a pillow removes what is not its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon.config.errors import Mistake, Path
from daemon.config.yaml_nodes import Node
from pillows.options import Options, OutputOptions

# Stands in a claim for the source, which is part of the key of a `shared` table.
_BY_SOURCE = "by its source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That an output of a pillow writes one place of a connection.

    Attributes:
        pillow: whose output it is.
        path: where it is configured.
        connection: the connection's name.
        target: the place as it was written, by its `ADDRESS_KEYS`.
        places: the place by its own names, whichever connection leads there; see `places`.
        at: where the place is named.
    """

    pillow: str
    path: Path
    connection: str
    target: tuple[str, ...]
    places: frozenset[tuple[str, ...]]
    at: Node


def target(output: str, options: OutputOptions, connection: Options | None) -> dict[str, str]:
    """The place that an output writes, by the keys that say so; empty where its transport knows none.

    Args:
        output: the output's name, which is the place's where none is set.
        options: its validated settings.
        connection: those of its connection, which may hold a default (a schema); None if invalid.
    """
    values = options.model_dump(by_alias=True)
    defaults = connection.model_dump(by_alias=True) if connection else {}
    place = {key: str(values[key] or defaults.get(key) or output) for key in options.ADDRESS_KEYS}
    return place | {"shared": _BY_SOURCE} if options.is_per_source else place


def places(
    options: OutputOptions, connection: Options | None, spelled: Sequence[str]
) -> frozenset[tuple[str, ...]]:
    """The names of the place that an output writes; as it is spelled where nothing better is known.

    Args:
        options: the output's validated settings.
        connection: those of its connection; None if invalid.
        spelled: the connection's name and the target, as they were written.
    """
    known = options.addresses(connection) if connection else frozenset()
    by_source = (_BY_SOURCE,) if _BY_SOURCE in spelled else ()
    return frozenset((*place, *by_source) for place in known) or frozenset({tuple(spelled)})


def of_source(claims: Sequence[Claim], source: str) -> list[Claim]:
    """A pillow's claims once its source is known: of a shared table it writes that source's part."""

    def known(parts: Sequence[str]) -> tuple[str, ...]:
        return tuple(source if part == _BY_SOURCE else part for part in parts)

    return [
        replace(claim, target=known(claim.target), places=frozenset(map(known, claim.places)))
        for claim in claims
    ]


def compare(found: Sequence[Claim]) -> list[Mistake]:
    """A mistake for every place that is claimed twice, at the second claim, naming the first.

    One source's part of a table lies within the whole table, and its name begins with the table's.
    """
    owners: dict[tuple[str, ...], Claim] = {}
    within: dict[tuple[str, ...], Claim] = {}
    mistakes = []
    for claim in found:
        places = sorted(claim.places)
        beginnings = [place[:length] for place in places for length in range(1, len(place) + 1)]
        others = [*map(owners.get, beginnings), *map(within.get, places)]
        if (other := next(filter(None, others), None)) is not None:
            mistakes.append(_conflict(other, claim))
            continue  # what is wrong owns nothing
        owners.update(dict.fromkeys(places, claim))
        for place in beginnings:
            within.setdefault(place, claim)
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
