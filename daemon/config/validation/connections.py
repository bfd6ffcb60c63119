"""Validate the connections, whose settings depend on their type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from pydantic import ConfigDict

from daemon.config.models import ConnectionConfig
from daemon.config.plugins import import_plugins
from daemon.config.problems import KeyPath, ProblemCollector
from daemon.config.validation.validate import validate, validate_section
from daemon.config.yaml.nodes import Node
from pillows import registry
from pillows.errors import ConfigError
from pillows.options import Options, OutputOptions
from pillows.suggest import suggest
from pillows.transports.base import Transport

#: The type of a source's connection; it can be written to as well.
SOURCE_TYPE = "couchdb"


class _AnyOptions(Options):
    model_config = ConfigDict(extra="allow")


class _AnyOutputOptions(OutputOptions):
    model_config = ConfigDict(extra="allow")


class _UnloadedTransport(Transport):
    """Stands for a transport of a plugin that was not imported: any settings are valid."""

    Connection = _AnyOptions
    Output = _AnyOutputOptions
    concurrent = True


class KnownConnection(Struct, frozen=True, kw_only=True):
    """A connection of a known type.

    Attributes:
        its_type: the type.
        transport: the transport of that type.
        config: its settings; None if they are not valid.
    """

    its_type: str
    transport: type[Transport]
    config: ConnectionConfig | None


class Connections(Struct, frozen=True, kw_only=True):
    """The connections of a configuration.

    Attributes:
        names: the names of all connections, valid or not.
        known: the connections of a known type.
    """

    names: frozenset[str]
    known: Mapping[str, KnownConnection]

    @property
    def sources(self) -> list[str]:
        """The names of the connections that can be read from."""
        return sorted(name for name, each in self.known.items() if each.its_type == SOURCE_TYPE)

    @property
    def valid(self) -> dict[str, ConnectionConfig]:
        """The connections whose settings are valid."""
        return {name: each.config for name, each in self.known.items() if each.config is not None}

    def get_settings(self, name: str) -> Options | None:
        """Return the settings of a connection; None if they are not valid."""
        found = self.known.get(name)
        return found.config.options if found and found.config else None


def validate_connections(root: Node, *, plugins: bool = True) -> tuple[Connections, ProblemCollector]:
    """Validate the section `connections` of a merged tree.

    Args:
        root: the tree.
        plugins: import the modules of `daemon.plugins_path` for a type that is not known otherwise. If not,
            any settings of such a connection are valid.
    """
    section = root.find(("connections",))
    names = section.value if section and isinstance(section.value, dict) else ()
    problems = _import_types(root) if plugins else ProblemCollector()
    has_plugins = root.find(("daemon", "plugins_path")) is not None
    fallback = _UnloadedTransport if has_plugins and not plugins else None
    known: dict[str, KnownConnection] = {}
    for name, node in problems.take(validate_section(root, "connections")).items():
        connection = _validate_connection(("connections", name), node, problems, fallback)
        if connection is not None:
            known[name] = connection
    return Connections(names=frozenset(names), known=known), problems


def _import_types(root: Node) -> ProblemCollector:
    """Import the modules of `daemon.plugins_path`, which may register a type, if a type is not known."""
    problems = ProblemCollector()
    section, listed = root.find(("connections",)), root.find(("daemon", "plugins_path"))
    types = [node.find(("type",)) for _, node in section.children()] if section else []
    if listed is None or all(type is None or _is_known(type) for type in types):
        return problems
    folders = [Path(node.place.file).parent / str(node.value) for _, node in listed.children()]
    try:
        import_plugins([folder.absolute() for folder in folders])
    except ConfigError as error:
        path = ("daemon", "plugins_path")
        problems.add(listed.shown_at, path, error.args[0], error.remedy or "correct it")
    return problems


def _validate_connection(
    path: KeyPath,
    node: Node,
    problems: ProblemCollector,
    fallback: type[Transport] | None,
) -> KnownConnection | None:
    """Validate one connection; with a fallback, of any type."""
    written = node.find(("type",))
    its_type: str | None
    transport: type[Transport] | None
    if (
        fallback is not None
        and written is not None
        and isinstance(written.value, str)
        and not _is_known(written)
    ):
        its_type, transport = written.value, fallback
    else:
        its_type = _validate_type(node, (*path, "type"), problems)
        transport = _find_transport(its_type, node, (*path, "type"), problems) if its_type else None
    if its_type is None or transport is None:
        return None
    model = transport.Connection
    settings = node if "type" in model.model_fields else node.without("type")
    options = problems.take(validate(model, settings, path))
    config = None if options is None else ConnectionConfig(type=its_type, options=options)
    return KnownConnection(its_type=its_type, transport=transport, config=config)


def _is_known(written: Node) -> bool:
    return isinstance(written.value, str) and registry.has_transport(written.value)


def _validate_type(node: Node, path: KeyPath, problems: ProblemCollector) -> str | None:
    written = node.find(("type",))
    if written is not None and _is_known(written):
        return str(written.value)
    types = registry.transport_types()
    listed = ", ".join(types)
    if written is None:
        problems.add(node.shown_at, path, "is missing", f"add `type:`, one of {listed}")
    elif written.value is None:
        remedy = f'write one of {listed}; "null" in quotes, since YAML takes it for nothing'
        problems.add(written.shown_at, path, "is empty", remedy)
    elif not written.broken:
        remedy = suggest(str(written.value), types, "types")
        problems.add(written.shown_at, path, f"there is no type `{written.value}`", remedy)
    return None


def _find_transport(
    its_type: str, node: Node, path: KeyPath, problems: ProblemCollector
) -> type[Transport] | None:
    place = (node.find(("type",)) or node).shown_at
    try:
        return registry.transport(its_type)
    except ConfigError as error:
        problems.add(place, path, error.args[0], error.remedy or "use another type")
    except ImportError as error:
        problems.add(place, path, f"needs {error.name}, which is not installed", "install it")
    return None
