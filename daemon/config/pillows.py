"""Puts together the pillows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from daemon.config.connections import SOURCE_TYPE, Connections
from daemon.config.cross_checks import Whole
from daemon.config.errors import Mistake, Path, dotted
from daemon.config.models import NAME, PillowConfig, TransportEntry
from daemon.config.output_ownership import Claim, compare, of_source
from daemon.config.problems import Report
from daemon.config.transport_entries import Entry
from daemon.config.yaml_nodes import Node
from pillows.feed.options import SourceOptions
from pillows.options import Options
from pillows.suggest import suggest


def read_pillows(root: Node, connections: Connections, report: Report) -> dict[str, PillowConfig]:
    """The section `pillows` of a merged tree; of one with mistakes what is right, where that is enough."""
    found: dict[str, PillowConfig] = {}
    claims: list[Claim] = []
    for name, node in report.section(root, "pillows"):
        pillow, its_claims = _pillow(name, node, connections, report)
        if pillow is not None:
            found[name] = pillow
        # A disabled pillow may stand beside the one that took over its outputs.
        if pillow is None or pillow.enabled:
            claims += its_claims
    report.mistakes.extend(compare(claims))
    return found


def _pillow(
    name: str, node: Node, connections: Connections, report: Report
) -> tuple[PillowConfig | None, list[Claim]]:
    path = ("pillows", name)
    before = len(report.mistakes)
    _check_source(node, path, connections, report)
    declared = _declared(name, node)
    entries, claims = _transports(name, node, declared, connections, report)
    given: dict[str, object] = {"transport": entries}
    if node.find(("outputs",)) is None and re.fullmatch(NAME, name):
        given["outputs"] = declared
    pillow: Options | None = report.validated(PillowConfig, node, path, given)
    broken = _broken(report.mistakes[before:], path)
    # An entry is missing without a mistake of its own where its connection has one.
    if node.find(("transport", len(entries))) is not None:
        broken.add("transport")
    if broken:
        pillow = _rest(node, path, given, broken)
    source = f"the source of {name}"
    if isinstance(pillow, PillowConfig):
        Whole(pillow=pillow, node=node, path=path, connections=connections, report=report).look(broken)
        if "source" not in broken:
            source = f"{pillow.source.connection}/{pillow.source.database}"
    return pillow if isinstance(pillow, PillowConfig) else None, of_source(claims, source)


def _broken(mistakes: Sequence[Mistake], path: Path) -> set[str]:
    """The keys of a pillow that have mistakes, right in them or below."""
    rest = [mistake.path.removeprefix(dotted(path)).lstrip(".") for mistake in mistakes]
    return {re.split(r"[.\[]", each)[0] for each in rest}


def _rest(node: Node, path: Path, given: dict[str, object], broken: Collection[str]) -> Options | None:
    """A pillow without the keys that have mistakes, so that the others can be looked at, too."""
    source = SourceOptions.model_construct(connection="", database="")
    stand_in: dict[str, object] = {"source": source} if "source" in broken else {}
    return Report().validated(PillowConfig, node.without(*broken), path, given | stand_in)


def _check_source(pillow: Node, path: Path, connections: Connections, report: Report) -> None:
    node = pillow.find(("source", "connection"))
    if node is None or node.broken or not isinstance(node.value, str) or node.value in connections.sources:
        return
    if node.value in connections.types:
        message = f"`{node.value}` is of type {connections.types[node.value]}, not a source"
    elif node.value not in connections.written:
        message = f"there is no connection `{node.value}`"
    else:
        return
    remedy = suggest(node.value, connections.sources, f"connections of type {SOURCE_TYPE}")
    report.wrong(node, (*path, "source", "connection"), message, remedy)


def _transports(
    name: str, pillow: Node, declared: list[str], connections: Connections, report: Report
) -> tuple[list[TransportEntry], list[Claim]]:
    path: Path = ("pillows", name, "transport")
    listed = pillow.find(("transport",))
    if listed is None or listed.value in (None, []):
        remedy = "add `transport:` with an entry such as `- { connection: search, index: cases }`"
        report.wrong(listed or pillow, path, "the pillow has no transport", remedy, at_key=True)
        return [], []
    if not isinstance(listed.value, list):
        report.wrong(listed, path, "needs a list", "write one `- { connection: ... }` per transport")
        return [], []
    entries: list[TransportEntry] = []
    claims: list[Claim] = []
    for index, node in enumerate(listed.value):
        entry, its_claims = Entry(
            pillow=name,
            path=(*path, index),
            node=node,
            declared=declared,
            connections=connections,
            report=report,
        ).read()
        claims += its_claims
        if entry is not None:
            entries.append(entry)
    _check_names(entries, listed, path, report)
    return entries, claims


def _check_names(entries: list[TransportEntry], listed: Node, path: Path, report: Report) -> None:
    names = [entry.name for entry in entries]
    for name in sorted({name for name in names if names.count(name) > 1}):
        remedy = "give them different names with `name:`"
        report.wrong(listed, path, f"two transports are called `{name}`", remedy)


def _declared(name: str, node: Node) -> list[str]:
    """The outputs that a pillow declares; what is wrong with them is said when it is validated."""
    listed = node.find(("outputs",))
    names = listed.plain() if listed else None
    if not names or not isinstance(names, list):
        return [name]
    return [each for each in names if isinstance(each, str)]
