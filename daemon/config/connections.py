"""Puts together the connections, whose settings depend on their type."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path as FilePath

from daemon.config.errors import Path
from daemon.config.models import ConnectionEntry
from daemon.config.plugins import import_plugins
from daemon.config.problems import Report
from daemon.config.yaml_nodes import Node
from pillows import registry
from pillows.errors import ConfigError
from pillows.options import Options
from pillows.suggest import suggest
from pillows.transports.base import Transport

#: The type of a source's connection; it can be written to as well.
SOURCE_TYPE = "couchdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The connections of a configuration.

    Attributes:
        written: all names, whatever stands there.
        types: the type of every connection that has a known one, its settings valid or not.
        transports: the transports of these.
        entries: the valid ones.
    """

    written: frozenset[str]
    types: dict[str, str] = field(default_factory=dict)
    transports: dict[str, type[Transport]] = field(default_factory=dict)
    entries: dict[str, ConnectionEntry] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """The names of those that can be read from."""
        return sorted(name for name, its_type in self.types.items() if its_type == SOURCE_TYPE)


def read_connections(root: Node, report: Report) -> Connections:
    """The section `connections` of a merged tree."""
    section = root.find(("connections",))
    names = section.value if section and isinstance(section.value, dict) else ()
    found = Connections(written=frozenset(names))
    _import_types(root, report)
    known = registry.transport_types()
    for name, node in report.section(root, "connections"):
        _read(name, node, found, known, report)
    return found


def _import_types(root: Node, report: Report) -> None:
    """Where a type is not known, a module of `daemon.plugins_path` may register it."""
    section, listed = root.find(("connections",)), root.find(("daemon", "plugins_path"))
    types = [node.find(("type",)) for _, node in section.children()] if section else []
    known = registry.transport_types()
    if listed is None or all(its is None or its.value in known for its in types):
        return
    folders = [FilePath(node.place.file).parent / str(node.value) for _, node in listed.children()]
    try:
        import_plugins([folder.absolute() for folder in folders])
    except ConfigError as error:
        report.wrong(listed, ("daemon", "plugins_path"), error.args[0], error.remedy or "correct it")


def _read(name: str, node: Node, found: Connections, known: list[str], report: Report) -> None:
    path = ("connections", name)
    its_type = _type(node, (*path, "type"), known, report)
    if its_type is None:
        return
    transport = _transport(its_type, node, (*path, "type"), report)
    if transport is None:
        return
    found.types[name] = its_type
    found.transports[name] = transport
    model = transport.Connection
    options = report.validated(model, _settings(node, model), path)
    if options is not None:
        found.entries[name] = ConnectionEntry(type=its_type, options=options)


def _type(node: Node, path: Path, known: list[str], report: Report) -> str | None:
    written = node.find(("type",))
    if written is None:
        report.wrong(node, path, "is missing", f"add `type:`, one of {', '.join(known)}")
    elif written.value is None:
        remedy = f'write one of {", ".join(known)}; "null" in quotes, since YAML takes it for nothing'
        report.wrong(written, path, "is empty", remedy)
    elif written.value in known:
        return str(written.value)
    elif not written.broken:
        remedy = suggest(str(written.value), known, "types")
        report.wrong(written, path, f"there is no type `{written.value}`", remedy)
    return None


def _transport(its_type: str, node: Node, path: Path, report: Report) -> type[Transport] | None:
    at = node.find(("type",)) or node
    try:
        return registry.transport(its_type)
    except ConfigError as error:
        report.wrong(at, path, error.args[0], error.remedy or "use another type")
    except ImportError as error:
        report.wrong(at, path, f"needs {error.name}, which is not installed", "install it")
    return None


def _settings(node: Node, model: type[Options]) -> Node:
    return node if "type" in model.model_fields else node.without("type")
