"""Check that every output belongs to one pillow, since a pillow removes rows that are not its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from daemon.config.problems import KeyPath, Place, ProblemCollector
from daemon.config.validation.connections import Connections
from daemon.config.validation.pillows import PillowEntry
from daemon.config.validation.transport_entries import OutputEntry
from pillows.options import Options, OutputOptions


class Claim(Struct, frozen=True, kw_only=True):
    """The claim of a pillow's output to a place of a connection.

    Attributes:
        pillow: the pillow's name.
        path: the key path of the output's settings.
        connection: the connection's name.
        target: the place as it was written, by its `ADDRESS_KEYS`.
        addresses: the place by its own names, whichever connection leads there; see `get_addresses`.
        place: the line that names the place.
    """

    pillow: str
    path: KeyPath
    connection: str
    target: tuple[str, ...]
    addresses: frozenset[tuple[str, ...]]
    place: Place


def check_ownership(pillows: Iterable[PillowEntry], connections: Connections) -> ProblemCollector:
    """Return a problem for every place that is claimed twice, at the second claim, naming the first.

    A shared table belongs to the source that a row comes from: one source's part lies within the whole
    table, and its address begins with the table's. A disabled pillow claims nothing: it may be kept beside
    the one that took over its outputs.
    """
    owners: dict[tuple[str, ...], Claim] = {}
    within: dict[tuple[str, ...], Claim] = {}
    problems = ProblemCollector()
    for claim in _list_claims(pillows, connections):
        addresses = sorted(claim.addresses)
        beginnings = [each[:length] for each in addresses for length in range(1, len(each) + 1)]
        others = [*map(owners.get, beginnings), *map(within.get, addresses)]
        if (other := next(filter(None, others), None)) is not None:
            _add_conflict(problems, other, claim)
            continue  # a second claim owns nothing
        owners.update(dict.fromkeys(addresses, claim))
        for beginning in beginnings:
            within.setdefault(beginning, claim)
    return problems


def get_addresses(
    options: OutputOptions, connection: Options | None, written: Sequence[str]
) -> frozenset[tuple[str, ...]]:
    """Return the addresses of the place that an output writes.

    Args:
        options: the output's validated settings.
        connection: those of its connection; None if they are not valid.
        written: the connection's name and the target, as they were written; the only address if the
            transport knows none.
    """
    known = options.addresses(connection) if connection else frozenset()
    return known or frozenset({tuple(written)})


def _list_claims(pillows: Iterable[PillowEntry], connections: Connections) -> Iterable[Claim]:
    for pillow in pillows:
        if pillow.config is not None and not pillow.config.enabled:
            continue
        for transport in pillow.transports:
            settings = connections.get_settings(transport.connection)
            for output in transport.outputs:
                claim = _make_claim(pillow, transport.connection, settings, output)
                if claim.target:
                    yield claim


def _make_claim(pillow: PillowEntry, connection: str, settings: Options | None, output: OutputEntry) -> Claim:
    target = get_target(output.options, settings, output.name)
    named = next((node for key in reversed(target) if (node := output.node.find((key,)))), output.node)
    written = tuple(target.values())
    addresses = get_addresses(output.options, settings, (connection, *written))
    if output.options.is_per_source:
        part = (_get_source(pillow),)
        written += part
        addresses = frozenset((*address, *part) for address in addresses)
    return Claim(
        pillow=pillow.name,
        path=output.path,
        connection=connection,
        target=written,
        addresses=addresses,
        place=named.shown_at,
    )


def get_target(options: OutputOptions, connection: Options | None, name: str) -> dict[str, str]:
    """Return the place that an output writes, by key; empty if its transport has no places.

    A missing value is the connection's default (such as its schema), else the output's name.
    """
    values = options.model_dump(by_alias=True)
    defaults = connection.model_dump(by_alias=True) if connection else {}
    return {key: str(values[key] or defaults.get(key) or name) for key in options.ADDRESS_KEYS}


def _get_source(pillow: PillowEntry) -> str:
    """Return a name of the pillow's source, which is part of the key of a shared table."""
    if pillow.config is None or "source" in pillow.broken:
        return f"the source of {pillow.name}"
    return pillow.config.source.name


def _add_conflict(problems: ProblemCollector, first: Claim, second: Claim) -> None:
    owner = f"`{first.pillow}` ({first.place.file} line {first.place.line})"
    target = f"`{'.'.join(second.target)}` of connection `{second.connection}`"
    message = f"pillow `{second.pillow}` writes {target}, which belongs to {owner}"
    problems.add(second.place, second.path, message, "give one of the two another place")
