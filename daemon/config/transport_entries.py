"""Puts together one entry of a pillow's `transport`, whose settings depend on its connection's type."""

from __future__ import annotations

from dataclasses import dataclass, replace

from daemon.config.connections import Connections
from daemon.config.errors import Path
from daemon.config.model_introspection import fields
from daemon.config.models import TransportEntry
from daemon.config.output_ownership import Claim, places, target
from daemon.config.problems import Report
from daemon.config.yaml_nodes import Node
from pillows.options import OutputOptions
from pillows.suggest import suggest

#: What an entry holds beside the settings of its output.
KEYS = ("connection", "name", "timeout", "own_pace", "outputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was written of one transport of a pillow.

    Attributes:
        pillow: the pillow's name.
        path: the entry's key path.
        node: what was written.
        declared: the pillow's outputs.
        connections: what it may refer to.
        report: takes what is wrong.
    """

    pillow: str
    path: Path
    node: Node
    declared: list[str]
    connections: Connections
    report: Report

    def read(self) -> tuple[TransportEntry | None, list[Claim]]:
        """The entry, None where it has mistakes; and the places that its outputs write."""
        connection = self._connection()
        if connection is None:
            return None, []
        written = self._outputs()
        model = self.connections.transports[connection].Output
        outputs: dict[str, OutputOptions] = {}
        for name, (path, node) in written.items():
            options = self.report.validated(model, self._known_only(node, path, model), path)
            if isinstance(options, OutputOptions):
                outputs[name] = options
        entry = self._entry(connection, outputs) if len(outputs) == len(written) else None
        found = [self._claim(connection, name, options, *written[name]) for name, options in outputs.items()]
        return entry, [each for each in found if each.target]

    def _claim(self, connection: str, output: str, options: OutputOptions, path: Path, node: Node) -> Claim:
        entry = self.connections.entries.get(connection)
        settings = entry.options if entry else None
        place = target(output, options, settings)
        at = next((each for key in reversed(place) if (each := node.find((key,)))), node)
        spelled = tuple(place.values())
        return Claim(
            pillow=self.pillow,
            path=path,
            connection=connection,
            target=spelled,
            places=places(options, settings, (connection, *spelled)),
            at=at,
        )

    def _entry(self, connection: str, outputs: dict[str, OutputOptions]) -> TransportEntry | None:
        name = self.node.find(("name",))
        given = {"connection": connection, "name": name.value if name else connection, "outputs": outputs}
        entry = self.report.validated(
            TransportEntry, self.node.only("connection", "name", "timeout", "own_pace"), self.path, given
        )
        return entry if isinstance(entry, TransportEntry) else None

    def _connection(self) -> str | None:
        """The name of the connection, where its type is known."""
        known = sorted(self.connections.transports)
        path = (*self.path, "connection")
        node = self.node.find(("connection",))
        if not isinstance(self.node.value, dict):
            self.report.wrong(self.node, self.path, "needs a mapping", "write `{ connection: ... }`")
            return None
        if node is None:
            remedy = f"add `connection:`, one of {', '.join(known) or 'your connections'}"
            self.report.wrong(self.node, path, "is missing", remedy)
            return None
        name = str(node.value)
        if name in known:
            return name
        if not node.broken and name not in self.connections.written:
            remedy = suggest(name, known, "connections")
            self.report.wrong(node, path, f"there is no connection `{name}`", remedy)
        return None

    def _outputs(self) -> dict[str, tuple[Path, Node]]:
        """Where the settings of each output stand, and what was written of them."""
        listed = self.node.find(("outputs",))
        own = self.node.without(*KEYS)
        if listed is None:
            return {self.declared[0]: (self.path, own)} if self.declared else {}
        for key, value in own.children():
            remedy = "move it below one of the `outputs`"
            self.report.wrong(value, (*self.path, key), "stands beside `outputs`", remedy, at_key=True)
        path = (*self.path, "outputs")
        if not isinstance(listed.value, dict) or not listed.value:
            self.report.wrong(listed, path, "needs a mapping", "write one `name:` per output")
            return {}
        return {
            name: ((*path, name), self._declared(name, node, path)) for name, node in listed.value.items()
        }

    def _declared(self, name: str, node: Node, path: Path) -> Node:
        if name not in self.declared:
            message = f"`{name}` is not declared in the pillow's `outputs`"
            remedy = suggest(name, self.declared, "outputs of the pillow")
            self.report.wrong(node, (*path, name), message, remedy, at_key=True)
        return replace(node, value={}) if node.value is None else node

    def _known_only(self, node: Node, path: Path, model: type[OutputOptions]) -> Node:
        """The settings without the keys that are none; those are noted, with an entry's own keys in mind."""
        if path != self.path:
            return node
        known = fields([model])
        wrong = [key for key in node.value if key not in known]
        for key in wrong:
            remedy = suggest(key, [*known, *KEYS], "keys here")
            self.report.wrong(node.value[key], (*path, key), "is no known key", remedy, at_key=True)
        return node.without(*wrong)
