"""Puts together connections and pillows, whose settings depend on the type of what they use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from daemon.config_claims import Claim, claims, compare
from daemon.config_errors import Mistake, Path, suggest
from daemon.config_models import NAME, ConnectionEntry, PillowConfig, TransportEntry
from daemon.config_shapes import fields, prepare
from daemon.config_words import validate
from daemon.yaml_lines import Node
from pillows import registry
from pillows.couch_options import CouchConnection
from pillows.errors import ConfigError
from pillows.options import Options
from pillows.transports.base import Transport

#: The type of a source's connection.
SOURCE_TYPE = "couchdb"
#: What a transport's entry holds beside the settings of its output.
ENTRY_KEYS = ("connection", "name", "outputs")


@dataclass(slots=True)
class Parts:
    """Validates the sections `connections` and `pillows`, collecting all mistakes.

    Attributes:
        root: the merged tree.
        mistakes: everything wrong so far.
        connections, pillows: what is valid, by name.
        types: the type of every connection that has a known one, valid or not.
        claims: which output writes where.
    """

    root: Node
    mistakes: list[Mistake] = field(default_factory=list)
    connections: dict[str, ConnectionEntry] = field(default_factory=dict)
    pillows: dict[str, PillowConfig] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def build(self) -> None:
        """Validates all of it."""
        for name, node in self._section("connections"):
            self._connection(name, node)
        for name, node in self._section("pillows"):
            self._pillow(name, node)
        self.mistakes += compare(self.claims)

    def _section(self, section: str) -> Iterator[tuple[str, Node]]:
        found = self.root.find((section,))
        if found is None or found.value is None:
            return
        if not isinstance(found.value, dict):
            self._wrong(found, (section,), "needs a mapping", "write one `name:` per entry, its keys below")
            return
        for name, node in found.value.items():
            self._check_name(name, node, (section, name))
            if isinstance(node.value, dict):
                yield name, node
            elif not node.broken:
                self._wrong(node, (section, name), "needs a mapping", "write `key: value` lines below it")

    def _check_name(self, name: str, node: Node, path: Path) -> None:
        if not re.fullmatch(NAME, name):
            remedy = "use letters, digits, `_` and `-`, at most 63 of them"
            self._wrong(node, path, f"{name!r} is no name", remedy)

    # -- connections ---------------------------------------------------------------------------

    def _connection(self, name: str, node: Node) -> None:
        path = ("connections", name)
        its_type = node.find(("type",))
        known = sorted({SOURCE_TYPE, *registry.transport_types()})
        if its_type is None:
            self._wrong(node, (*path, "type"), "is missing", f"add `type:`, one of {', '.join(known)}")
            return
        if its_type.broken:
            return
        if its_type.value is None:
            remedy = f'write one of {", ".join(known)}; "null" in quotes, since YAML takes it for nothing'
            self._wrong(its_type, (*path, "type"), "is empty", remedy)
            return
        if its_type.value not in known:
            message = f"there is no type `{its_type.value}`"
            self._wrong(its_type, (*path, "type"), message, suggest(str(its_type.value), known, "types"))
            return
        model = self._connection_model(its_type.value, its_type, path)
        if model is None:
            return
        self.types[name] = its_type.value
        options = self._validated(
            model, node if "type" in model.model_fields else _without(node, "type"), path
        )
        if options is not None:
            self.connections[name] = ConnectionEntry(type=its_type.value, options=options)

    def _connection_model(self, name: str, node: Node, path: Path) -> type[Options] | None:
        if name == SOURCE_TYPE:
            return CouchConnection
        found = self._transport(name, node, path)
        return found.Connection if found else None

    def _transport(self, name: str, node: Node, path: Path) -> type[Transport] | None:
        try:
            return registry.transport(name)
        except ConfigError as error:
            self._wrong(node, (*path, "type"), error.args[0], error.remedy or "use another type")
        except ImportError as error:
            self._wrong(node, (*path, "type"), f"needs {error.name}, which is not installed", "install it")
        return None

    # -- pillows -------------------------------------------------------------------------------

    def _pillow(self, name: str, node: Node) -> None:
        path = ("pillows", name)
        self._check_source(node, path)
        outputs = _declared(name, node)
        before = len(self.mistakes)
        entries = self._transports(name, node, path, outputs)
        given: dict[str, object] = {"transport": entries}
        if node.find(("outputs",)) is None and re.fullmatch(NAME, name):
            given["outputs"] = outputs
        pillow = self._validated(PillowConfig, node, path, given)
        if isinstance(pillow, PillowConfig) and len(self.mistakes) == before:
            self.pillows[name] = pillow

    def _check_source(self, pillow: Node, path: Path) -> None:
        node = pillow.find(("source", "connection"))
        if node is None or node.broken or not isinstance(node.value, str):
            return
        at = (*path, "source", "connection")
        known = sorted(name for name, its_type in self.types.items() if its_type == SOURCE_TYPE)
        if node.value in self.types:
            if node.value not in known:
                message = f"`{node.value}` is of type {self.types[node.value]}, not a source"
                self._wrong(
                    node, at, message, suggest(node.value, known, f"connections of type {SOURCE_TYPE}")
                )
        elif not self._written(node.value):
            message = f"there is no connection `{node.value}`"
            self._wrong(node, at, message, suggest(node.value, known, f"connections of type {SOURCE_TYPE}"))

    def _written(self, connection: str) -> bool:
        return self.root.find(("connections", connection)) is not None

    def _transports(self, pillow: str, node: Node, path: Path, outputs: list[str]) -> list[TransportEntry]:
        path = (*path, "transport")
        listed = node.find(("transport",))
        if listed is None or listed.value in (None, []):
            remedy = "add `transport:` with an entry such as `- { connection: search, index: cases }`"
            self._wrong(listed or node, path, "the pillow has no transport", remedy, at_key=True)
            return []
        if not isinstance(listed.value, list):
            remedy = "write one `- { connection: ... }` per transport"
            self._wrong(listed, path, "needs a list", remedy)
            return []
        found = [self._entry(item, (*path, i), outputs, pillow) for i, item in enumerate(listed.value)]
        entries = [entry for entry in found if entry]
        self._check_names(entries, listed, path)
        return entries

    def _check_names(self, entries: list[TransportEntry], listed: Node, path: Path) -> None:
        names = [entry.name for entry in entries]
        for name in {name for name in names if names.count(name) > 1}:
            remedy = "give them different names with `name:`"
            self._wrong(listed, path, f"two transports are called `{name}`", remedy)

    def _entry(self, node: Node, path: Path, outputs: list[str], pillow: str) -> TransportEntry | None:
        connection = node.find(("connection",))
        if not isinstance(node.value, dict):
            self._wrong(node, path, "needs a mapping", "write `{ connection: ... }`")
            return None
        if connection is None:
            remedy = f"add `connection:`, one of {', '.join(self._targets()) or 'your connections'}"
            self._wrong(node, (*path, "connection"), "is missing", remedy)
            return None
        its_type = self._target_type(connection, (*path, "connection"))
        transport = its_type and self._transport(its_type, connection, path)
        if not transport:
            return None
        written = self._outputs(node, path, outputs, transport.Output)
        valid = {name: o for name, at, n in written if (o := self._output(transport.Output, n, at))}
        if len(valid) < len(written):
            return None
        if _enabled(self.root.find(("pillows", pillow))):
            self.claims += claims(pillow, connection.value, valid, written, self._options(connection.value))
        label = node.find(("name",))
        plain = label.value if label else connection.value
        data = {"name": plain, "connection": connection.value, "outputs": valid}
        entry = self._validated(TransportEntry, _only(node, "name", "connection"), path, data)
        return entry if isinstance(entry, TransportEntry) else None

    def _options(self, connection: str) -> Options | None:
        entry = self.connections.get(connection)
        return entry.options if entry else None

    def _targets(self) -> list[str]:
        return sorted(name for name, its_type in self.types.items() if its_type in registry.transport_types())

    def _target_type(self, node: Node, path: Path) -> str | None:
        if node.broken:
            return None
        name, known = str(node.value), self._targets()
        if name in known:
            return self.types[name]
        if name in self.types:
            message = f"`{name}` is of type {self.types[name]}, which is a source and cannot be written to"
        elif self._written(name):
            return None
        else:
            message = f"there is no connection `{name}`"
        self._wrong(node, path, message, suggest(name, known, "connections that can be written to"))
        return None

    def _outputs(
        self, node: Node, path: Path, declared: list[str], model: type[Options]
    ) -> list[tuple[str, Path, Node]]:
        """The outputs of an entry, with their path and what was written of them."""
        listed = node.find(("outputs",))
        own = _without(node, *ENTRY_KEYS)
        if listed is None:
            return [(declared[0], path, self._known_only(own, path, model))] if declared else []
        for key, value in own.value.items():
            remedy = "move it below one of the `outputs`"
            self._wrong(value, (*path, key), "stands beside `outputs`", remedy, at_key=True)
        if not isinstance(listed.value, dict) or not listed.value:
            self._wrong(listed, (*path, "outputs"), "needs a mapping", "write one `name:` per output")
            return []
        for name, value in listed.value.items():
            if name not in declared:
                remedy = suggest(name, declared, "outputs of the pillow")
                at = (*path, "outputs", name)
                self._wrong(
                    value, at, f"`{name}` is not declared in the pillow's `outputs`", remedy, at_key=True
                )
        return [(name, (*path, "outputs", name), value) for name, value in listed.value.items()]

    def _known_only(self, node: Node, path: Path, model: type[Options]) -> Node:
        known = fields([model])
        wrong = [key for key in node.value if key not in known]
        for key in wrong:
            remedy = suggest(key, [*known, *ENTRY_KEYS], "keys here")
            self._wrong(node.value[key], (*path, key), "is no known key", remedy, at_key=True)
        return _without(node, *wrong)

    def _output(self, model: type[Options], node: Node, path: Path) -> Options | None:
        if node.value is None:
            node = replace(node, value={})
        return self._validated(model, node, path)

    # -- helpers -------------------------------------------------------------------------------

    def _validated(
        self, model: type[Options], node: Node, path: Path, given: Mapping[str, object] | None = None
    ) -> Options | None:
        prepared, wrong = prepare(node, [model], path)
        options, more = validate(model, prepared, path, dict(given or {}))
        self.mistakes += [*wrong, *more]
        return None if wrong else options

    def _wrong(self, node: Node, path: Path, message: str, remedy: str, *, at_key: bool = False) -> None:
        self.mistakes.append(node.mistake(path, message, remedy, at_key=at_key))


def _without(node: Node, *keys: str) -> Node:
    return replace(node, value={key: child for key, child in node.value.items() if key not in keys})


def _only(node: Node, *keys: str) -> Node:
    return replace(node, value={key: child for key, child in node.value.items() if key in keys})


def _declared(pillow: str, node: Node) -> list[str]:
    """The outputs that a pillow declares; what is wrong with them is said when it is validated."""
    listed = node.find(("outputs",))
    names = listed.plain() if listed else None
    if not names or not isinstance(names, list):
        return [pillow]
    return [name for name in names if isinstance(name, str)]


def _enabled(pillow: Node | None) -> bool:
    enabled = pillow.find(("enabled",)) if pillow else None
    return enabled is None or str(enabled.value).lower() != "false"
