"""Validate the pillows, each separately."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from daemon.config.models import NAME, NextOptions, PillowConfig
from daemon.config.problems import ConfigProblem, KeyPath, ProblemCollector
from daemon.config.validation.connections import SOURCE_TYPE, Connections
from daemon.config.validation.transport_entries import TransportEntry, validate_transport
from daemon.config.validation.validate import validate, validate_section
from daemon.config.yaml.nodes import Node
from pillows.feed.options import SourceOptions
from pillows.suggest import suggest


class PillowEntry(Struct, frozen=True, kw_only=True):
    """The valid parts of a pillow, for the checks of the whole pillow.

    Attributes:
        name: its name.
        node: its part of the tree.
        config: its settings, with stand-ins or defaults for broken keys; None if they are not enough.
        broken: its keys that have problems.
        transports: its entries of `transport` whose connection is known.
        below: the keys from the pillow to `node`.
    """

    name: str
    node: Node
    config: PillowConfig | None
    broken: frozenset[str]
    transports: Sequence[TransportEntry]
    below: KeyPath = ()

    @property
    def path(self) -> KeyPath:
        """The key path of its node."""
        return ("pillows", self.name, *self.below)

    def problem(self, at: KeyPath, message: str, remedy: str, *, at_key: bool = False) -> ConfigProblem:
        """Return a problem of one of its keys, or of all of it where the key is not written.

        Args:
            at: the path from its node to the key.
            message: the problem.
            remedy: what to do about it.
            at_key: whether the key itself is wrong, and not its value.
        """
        node = self.node.find(at) or self.node
        place = node.key_at if at_key else node.shown_at
        return ConfigProblem(place=place, path=(*self.path, *at), message=message, remedy=remedy)


def validate_pillows(root: Node, connections: Connections) -> tuple[list[PillowEntry], ProblemCollector]:
    """Validate the section `pillows` of a merged tree."""
    problems = ProblemCollector()
    entries = problems.take(validate_section(root, "pillows"))
    pillows = [problems.take(_validate_pillow(name, node, connections)) for name, node in entries.items()]
    return pillows, problems


def _validate_pillow(name: str, node: Node, connections: Connections) -> tuple[PillowEntry, ProblemCollector]:
    path = ("pillows", name)
    declared = _list_declared_outputs(name, node)
    problems = _check_source(node, path, connections)
    transports = problems.take(_validate_transports((*path, "transport"), node, declared, connections))
    configs = [each.config for each in transports if each.config is not None]
    given: dict[str, object] = {"transport": configs}
    if node.find(("outputs",)) is None and re.fullmatch(NAME, name):
        given["outputs"] = declared
    coming = node.find(("next",))
    if coming is not None and isinstance(coming.value, dict):
        given["next"] = problems.take(_validate_next(coming, (*path, "next"), declared, connections))
    config = problems.take(validate(PillowConfig, node, path, given))
    broken = {str(next(iter(problem.path[len(path) :]), "")) for problem in problems}
    # An entry is missing without a problem of its own if its connection has one.
    if node.find(("transport", len(configs))) is not None:
        broken.add("transport")
    if broken:
        if "source" in broken:
            given["source"] = SourceOptions.model_construct(connection="", database="unknown")
        config, _ = validate(PillowConfig, node.without(*broken), path, given)
    entry = PillowEntry(name=name, node=node, config=config, broken=frozenset(broken), transports=transports)
    return entry, problems


def _validate_next(
    node: Node, path: KeyPath, declared: list[str], connections: Connections
) -> tuple[NextOptions | None, ProblemCollector]:
    problems = ProblemCollector()
    given: dict[str, object] = {}
    if node.find(("transport",)) is not None:
        entries = problems.take(_validate_transports((*path, "transport"), node, declared, connections))
        given["transport"] = [each.config for each in entries if each.config is not None]
    found = problems.take(validate(NextOptions, node, path, given))
    return found, problems


def _list_declared_outputs(name: str, node: Node) -> list[str]:
    """Return the outputs that a pillow declares; the model reports their problems."""
    listed = node.find(("outputs",))
    names = listed.to_plain() if listed else None
    if not names or not isinstance(names, list):
        return [name]
    return [each for each in names if isinstance(each, str)]


def _check_source(pillow: Node, path: KeyPath, connections: Connections) -> ProblemCollector:
    problems = ProblemCollector()
    node = pillow.find(("source", "connection"))
    if node is None or node.broken or not isinstance(node.value, str) or node.value in connections.sources:
        return problems
    if node.value in connections.known:
        message = f"`{node.value}` is of type {connections.known[node.value].its_type}, not a source"
    elif node.value not in connections.names:
        message = f"there is no connection `{node.value}`"
    else:
        return problems
    remedy = suggest(node.value, connections.sources, f"connections of type {SOURCE_TYPE}")
    problems.add(node.shown_at, (*path, "source", "connection"), message, remedy)
    return problems


def _validate_transports(
    path: KeyPath, pillow: Node, declared: list[str], connections: Connections
) -> tuple[list[TransportEntry], ProblemCollector]:
    problems = ProblemCollector()
    listed = pillow.find(("transport",))
    if listed is None or listed.value in (None, []):
        remedy = "add `transport:` with an entry such as `- { connection: search, index: cases }`"
        problems.add((listed or pillow).key_at, path, "the pillow has no transport", remedy)
        return [], problems
    if not isinstance(listed.value, list):
        remedy = "write one `- { connection: ... }` per transport"
        problems.add(listed.shown_at, path, "needs a list", remedy)
        return [], problems
    found = (
        problems.take(validate_transport((*path, index), node, declared, connections))
        for index, node in enumerate(listed.value)
    )
    entries = [entry for entry in found if entry is not None]
    names = [each.config.name for each in entries if each.config is not None]
    for name in sorted({name for name in names if names.count(name) > 1}):
        remedy = "give them different names with `name:`"
        problems.add(listed.shown_at, path, f"two transports are called `{name}`", remedy)
    return entries, problems
