"""Validate one entry of a pillow's `transport`, whose settings depend on its connection's type."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from daemon.config.models import TransportConfig
from daemon.config.problems import KeyPath, ProblemCollector
from daemon.config.validation.connections import Connections
from daemon.config.validation.model_introspection import list_fields
from daemon.config.validation.validate import validate
from daemon.config.yaml.nodes import Node
from pillows.options import OutputOptions
from pillows.suggest import suggest

#: The keys of an entry that are no settings of its output.
KEYS = ("connection", "name", "timeout", "own_pace", "outputs")


class OutputEntry(Struct, frozen=True, kw_only=True):
    """The settings of one output of an entry.

    Attributes:
        name: the output's name.
        path: the key path of its settings.
        node: their part of the tree.
        options: the valid settings.
    """

    name: str
    path: KeyPath
    node: Node
    options: OutputOptions


class TransportEntry(Struct, frozen=True, kw_only=True):
    """An entry whose connection is known.

    Attributes:
        connection: the connection's name.
        outputs: the outputs whose settings are valid.
        config: the entry; None if anything in it is not valid.
    """

    connection: str
    outputs: Sequence[OutputEntry]
    config: TransportConfig | None


def validate_transport(
    path: KeyPath, node: Node, declared: Sequence[str], connections: Connections
) -> tuple[TransportEntry | None, ProblemCollector]:
    """Validate one entry.

    Args:
        path: the entry's key path.
        node: its part of the tree.
        declared: the pillow's outputs.
        connections: the connections that it may name.

    Returns:
        The entry, None if its connection is not known; and the problems.
    """
    problems = ProblemCollector()
    connection = _find_connection(path, node, connections, problems)
    if connection is None:
        return None, problems
    model = connections.known[connection].transport.Output
    written = _list_outputs(path, node, declared, problems)
    outputs: list[OutputEntry] = []
    for name, (its_path, settings) in written.items():
        is_entry = its_path == path  # the entry itself holds the settings of its one output
        known = _without_unknown_keys(path, settings, model, problems) if is_entry else settings
        options = problems.take(validate(model, known, its_path))
        if options is not None:
            outputs.append(OutputEntry(name=name, path=its_path, node=settings, options=options))
    config = None
    if len(outputs) == len(written):
        name_node = node.find(("name",))
        given = {
            "connection": connection,
            "name": name_node.value if name_node else connection,
            "outputs": {each.name: each.options for each in outputs},
        }
        own = node.only("connection", "name", "timeout", "own_pace")
        config = problems.take(validate(TransportConfig, own, path, given))
    return TransportEntry(connection=connection, outputs=outputs, config=config), problems


def _find_connection(
    path: KeyPath, node: Node, connections: Connections, problems: ProblemCollector
) -> str | None:
    """Return the name of the connection, if its type is known."""
    known = sorted(connections.known)
    if not isinstance(node.value, dict):
        problems.add(node.shown_at, path, "needs a mapping", "write `{ connection: ... }`")
        return None
    written = node.find(("connection",))
    path = (*path, "connection")
    if written is None:
        remedy = f"add `connection:`, one of {', '.join(known) or 'your connections'}"
        problems.add(node.shown_at, path, "is missing", remedy)
        return None
    name = str(written.value)
    if name in known:
        return name
    if not written.broken and name not in connections.names:
        remedy = suggest(name, known, "connections")
        problems.add(written.shown_at, path, f"there is no connection `{name}`", remedy)
    return None


def _list_outputs(
    path: KeyPath, node: Node, declared: Sequence[str], problems: ProblemCollector
) -> dict[str, tuple[KeyPath, Node]]:
    """Return the key path and the node of each output's settings."""
    listed = node.find(("outputs",))
    own = node.without(*KEYS)
    if listed is None:
        return {declared[0]: (path, own)} if declared else {}
    for key, value in own.children():
        remedy = "move it below one of the `outputs`"
        problems.add(value.key_at, (*path, key), "is not inside an output", remedy)
    path = (*path, "outputs")
    if not isinstance(listed.value, dict) or not listed.value:
        problems.add(listed.shown_at, path, "needs a mapping", "write one `name:` per output")
        return {}
    for name in listed.value.keys() - set(declared):
        message = f"`{name}` is not declared in the pillow's `outputs`"
        remedy = suggest(name, declared, "outputs of the pillow")
        problems.add(listed.value[name].key_at, (*path, name), message, remedy)
    return {
        name: ((*path, name), replace(each, value={}) if each.value is None else each)
        for name, each in listed.value.items()
    }


def _without_unknown_keys(
    path: KeyPath, node: Node, model: type[OutputOptions], problems: ProblemCollector
) -> Node:
    """Report the unknown keys of an entry, which may be misspelled keys of the entry or of its output."""
    if model.model_config.get("extra") == "allow":
        return node
    known = list_fields([model])
    unknown = [key for key in node.value if key not in known]
    for key in unknown:
        remedy = suggest(key, [*known, *KEYS], "keys here")
        problems.add(node.value[key].key_at, (*path, key), "is not a known key", remedy)
    return node.without(*unknown)
