"""Puts together the pillows."""

from __future__ import annotations

import re
from typing import Any

from daemon.config.claims import Claim, compare, of_source, places
from daemon.config.connections import SOURCE_TYPE, Connections
from daemon.config.entries import Entry
from daemon.config.errors import Path, suggest
from daemon.config.models import NAME, PillowConfig, TransportEntry
from daemon.config.report import Report
from daemon.config.yaml_lines import Node
from pillows.options import Options


def read_pillows(root: Node, connections: Connections, report: Report) -> dict[str, PillowConfig]:
    """The section `pillows` of a merged tree; those with mistakes are left out."""
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
    pillow = report.validated(PillowConfig, node, path, given)
    # An entry is missing without a mistake of its own where its connection has one.
    complete = node.find(("transport", len(entries))) is None
    if not isinstance(pillow, PillowConfig) or len(report.mistakes) > before or not complete:
        return None, claims
    _check_outputs(pillow, node, path, report)
    _check_pace(pillow, node, path, report)
    _check_lanes(pillow, node, path, connections, report)
    _check_loop(pillow, node, path, connections, report)
    return pillow, of_source(claims, f"{pillow.source.connection}/{pillow.source.database}")


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


def _check_outputs(pillow: PillowConfig, node: Node, path: Path, report: Report) -> None:
    """Every declared output is declared once, gets rows from somewhere, and goes somewhere."""
    written = {name for entry in pillow.transport for name in entry.outputs}
    for index, name in enumerate(pillow.outputs):
        at = (*path, "outputs", index)
        here = node.find(("outputs", index)) or node
        if name in pillow.outputs[:index]:
            report.wrong(here, at, f"`{name}` is declared twice", "remove one of the two")
        elif name not in written:
            remedy = "add it to the `outputs` of a transport, or remove it here"
            report.wrong(here, at, f"no transport writes the output `{name}`", remedy)
        elif index and not _may_fill(pillow, name):
            message = f"nothing fills `{name}`: without a transform, documents go into the first output"
            if pillow.transform is not None:
                message = f"nothing fills `{name}`: no step of the transform has `rows` for it"
            report.wrong(here, at, message, "add a `transform`, or remove this output")
    _check_steps(pillow, node, path, report)


def _may_fill(pillow: PillowConfig, output: str) -> bool:
    return any(output in step.rows for step in pillow.steps) or any(
        step.is_python for step in pillow.steps[-1:]
    )


def _check_steps(pillow: PillowConfig, node: Node, path: Path, report: Report) -> None:
    """A step fills declared outputs, each output from one step; a chunked function stands alone."""
    filled: set[str] = set()
    for index, step in enumerate(pillow.steps):
        at = (*path, "transform", index) if isinstance(pillow.transform, tuple) else (*path, "transform")
        for output in step.rows:
            here = node.find((*at[len(path) :], "rows", output)) or node
            if output not in pillow.outputs:
                remedy = suggest(output, pillow.outputs, "outputs of the pillow")
                message = f"`{output}` is not declared in the pillow's `outputs`"
                report.wrong(here, (*at, "rows", output), message, remedy, at_key=True)
            elif output in filled:
                message = f"`{output}` gets rows from two steps"
                report.wrong(here, (*at, "rows", output), message, "leave one of them", at_key=True)
            filled.add(output)
        if step.chunk is not None and len(pillow.steps) > 1:
            here = node.find((*at[len(path) :], "chunk")) or node
            message = "a function that gets chunks is the only step"
            report.wrong(here, (*at, "chunk"), message, "do the rest in the function, or leave out `chunk`")


def _check_pace(pillow: PillowConfig, node: Node, path: Path, report: Report) -> None:
    """One transport at least has the pillow's own name and checkpoint."""
    if all(entry.own_pace for entry in pillow.transport):
        here = node.find(("transport", 0, "own_pace")) or node
        message = "no transport of the pillow is left to go by its name"
        report.wrong(here, (*path, "transport", 0, "own_pace"), message, "remove it from one transport")


def _check_lanes(
    pillow: PillowConfig, node: Node, path: Path, connections: Connections, report: Report
) -> None:
    """Several batches in flight need a target that takes them: many write one after the other."""
    if pillow.batch.max_in_flight == 1:
        return
    here = node.find(("batch", "max_in_flight")) or node
    at = (*path, "batch", "max_in_flight")
    for name in dict.fromkeys(entry.connection for entry in pillow.transport):
        if not connections.transports[name].concurrent:
            message = f"`{name}` ({connections.types[name]}) writes one batch after the other"
            report.wrong(here, at, message, "set it to 1")


def _check_loop(
    pillow: PillowConfig, node: Node, path: Path, connections: Connections, report: Report
) -> None:
    """No output is the database that the pillow reads: it would read what it has written, for ever."""
    name = pillow.source.connection
    model: Any = connections.transports[name].Output
    read = model.model_construct(database=pillow.source.database)
    for index, entry in enumerate(pillow.transport):
        for output in entry.outputs.values():
            if _databases(name, read, connections) & _databases(entry.connection, output, connections):
                at = (*path, "transport", index)
                here = node.find(("transport", index)) or node
                report.wrong(here, at, "writes the database that it reads", "name another database")


def _databases(name: str, output: Options, connections: Connections) -> frozenset[tuple[str, ...]]:
    entry = connections.entries.get(name)
    return places(output, entry.options if entry else None, (name, str(getattr(output, "database", ""))))


def _declared(name: str, node: Node) -> list[str]:
    """The outputs that a pillow declares; what is wrong with them is said when it is validated."""
    listed = node.find(("outputs",))
    names = listed.plain() if listed else None
    if not names or not isinstance(names, list):
        return [name]
    return [each for each in names if isinstance(each, str)]
