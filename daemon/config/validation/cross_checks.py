"""Check each pillow as a whole: its outputs, transform, transports and source must fit together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from msgspec.structs import replace

from daemon.config.models import PillowConfig
from daemon.config.problems import KeyPath, ProblemCollector
from daemon.config.validation.connections import Connections
from daemon.config.validation.databases import check_databases
from daemon.config.validation.output_ownership import check_ownership, get_addresses, get_target
from daemon.config.validation.pillows import PillowEntry
from pillows.options import OutputOptions
from pillows.suggest import suggest


def cross_check(pillows: Iterable[PillowEntry], connections: Connections) -> ProblemCollector:
    """Return the problems of pillows that are right key by key, and of all pillows together."""
    pillows = list(pillows)
    problems = ProblemCollector()
    for pillow in pillows:
        if pillow.config is not None:
            problems += PillowCrossChecks(pillow, pillow.config, connections).run()
            problems += _check_next(pillow, pillow.config, connections)
            problems += check_databases(pillow, pillow.config, connections)
    return ProblemCollector([*problems, *check_ownership(pillows, connections)])


def _check_next(pillow: PillowEntry, config: PillowConfig, connections: Connections) -> ProblemCollector:
    """Check the next definition as a whole, and that it writes to the same places."""
    problems = ProblemCollector()
    node = pillow.node.find(("next",))
    if node is None or config.next is None or pillow.broken:
        return problems
    now, coming = config.definitions
    entry = replace(pillow, node=node, below=("next",))
    problems += PillowCrossChecks(entry, coming, connections).run()
    if _list_places(now) != _list_places(coming):
        message = "names other transports, outputs or places than the pillow"
        remedy = "keep their names: the new outputs get them at the switch. Or use a separate pillow"
        problems.append(entry.problem(("transport",), message, remedy))
    return problems


def _list_places(pillow: PillowConfig) -> list[tuple[object, ...]]:
    return [
        (entry.name, entry.connection, entry.own_pace, name, *get_target(options, None, name).values())
        for entry in pillow.transport
        for name, options in sorted(entry.outputs.items())
    ]


class PillowCrossChecks:
    """The checks of one pillow.

    Args:
        entry: the pillow as it was written.
        pillow: its settings.
        connections: the connections that it names.
    """

    def __init__(self, entry: PillowEntry, pillow: PillowConfig, connections: Connections) -> None:
        self._entry = entry
        self._pillow = pillow
        self._connections = connections
        self._problems = ProblemCollector()

    def run(self) -> ProblemCollector:
        """Return the problems; a check is left out if a key that it needs has problems itself."""
        checks = (
            (self._check_outputs_written, {"outputs"}),
            (self._check_outputs_filled, {"outputs", "transform"}),
            (self._check_steps, {"outputs", "transform"}),
            (self._check_pace, {"transport"}),
            (self._check_in_flight, {"batch", "transport"}),
            (self._check_loop, {"source", "transport"}),
        )
        for check, needed in checks:
            if needed.isdisjoint(self._entry.broken):
                check()
        return self._problems

    def _add(self, at: KeyPath, message: str, remedy: str, *, at_key: bool = False) -> None:
        self._problems.append(self._entry.problem(at, message, remedy, at_key=at_key))

    def _check_outputs_written(self) -> None:
        """Check that every output is declared once, and written by a transport."""
        outputs, written = self._pillow.outputs, self._list_written()
        for index, name in enumerate(outputs):
            if name in outputs[:index]:
                self._add(("outputs", index), f"`{name}` is declared twice", "remove one of the two")
            elif name not in written:
                remedy = "add it to the `outputs` of a transport, or remove it here"
                self._add(("outputs", index), f"no transport writes the output `{name}`", remedy)

    def _list_written(self) -> set[str]:
        """Return the outputs that transports name, valid or not; all if that is not certain."""
        declared = set(self._pillow.outputs)
        listed = self._entry.node.find(("transport",))
        if listed is None or not listed.value or not isinstance(listed.value, list):
            return declared
        found: set[str] = set()
        for entry in listed.value:
            named = entry.find(("outputs",))
            found |= {str(key) for key, _ in named.children()} if named else {*self._pillow.outputs[:1]}
        return found if found <= declared else declared  # an unknown name may be meant for any of them

    def _check_outputs_filled(self) -> None:
        """Check that every output but the first gets rows."""
        outputs, written = self._pillow.outputs, self._list_written()
        for index, name in enumerate(outputs):
            if not index or name in outputs[:index] or name not in written or self._may_fill(name):
                continue
            message = f"nothing fills `{name}`: without a transform, documents go into the first output"
            if self._pillow.transform is not None:
                message = f"nothing fills `{name}`: no step of the transform has `rows` for it"
            self._add(("outputs", index), message, "add a `transform`, or remove this output")

    def _may_fill(self, output: str) -> bool:
        steps = self._pillow.steps
        return any(output in step.rows for step in steps) or any(step.is_python for step in steps[-1:])

    def _check_steps(self) -> None:
        """Check that each output is declared and filled by one step; `chunk` allows one step only."""
        filled: set[str] = set()
        for index, step in enumerate(self._pillow.steps):
            at: KeyPath = (
                ("transform", index) if isinstance(self._pillow.transform, tuple) else ("transform",)
            )
            for output in step.rows:
                self._check_step_output((*at, "rows", output), output, filled)
                filled.add(output)
            if step.chunk is not None and len(self._pillow.steps) > 1:
                message = "a function with `chunk` must be the only step"
                self._add((*at, "chunk"), message, "do the rest in the function, or leave out `chunk`")

    def _check_step_output(self, at: KeyPath, output: str, filled: Collection[str]) -> None:
        if output not in self._pillow.outputs:
            remedy = suggest(output, self._pillow.outputs, "outputs of the pillow")
            message = f"`{output}` is not declared in the pillow's `outputs`"
            self._add(at, message, remedy, at_key=True)
        elif output in filled:
            self._add(at, f"`{output}` gets rows from two steps", "leave one of them", at_key=True)

    def _check_pace(self) -> None:
        """Check that a transport is left for the pillow's own name and checkpoint."""
        if all(entry.own_pace for entry in self._pillow.transport):
            message = "every transport of the pillow has `own_pace`, so none is left for the pillow itself"
            self._add(("transport", 0, "own_pace"), message, "remove it from one transport")

    def _check_in_flight(self) -> None:
        """Check that the targets accept several batches at once; many write one at a time."""
        if self._pillow.batch.max_in_flight == 1:
            return
        for name in dict.fromkeys(entry.connection for entry in self._pillow.transport):
            if not self._connections.known[name].transport.concurrent:
                message = f"`{name}` ({self._connections.known[name].its_type}) writes one batch at a time"
                self._add(("batch", "max_in_flight"), message, "set it to 1")

    def _check_loop(self) -> None:
        """Check that the pillow does not write the database that it reads, which would never end."""
        name = self._pillow.source.connection
        if name not in self._connections.known:  # reported with the source
            return
        if self._pillow.source.databases:  # no CouchDB takes the documents of several
            return
        model: Any = self._connections.known[name].transport.Output
        read = self._get_addresses(name, model.model_construct(database=self._pillow.source.database))
        for index, entry in enumerate(self._pillow.transport):
            for output in entry.outputs.values():
                if read & self._get_addresses(entry.connection, output):
                    message = "writes the database that it reads"
                    self._add(("transport", index), message, "name another database")

    def _get_addresses(self, connection: str, output: OutputOptions) -> frozenset[tuple[str, ...]]:
        written = (connection, str(getattr(output, "database", "")))
        return get_addresses(output, self._connections.get_settings(connection), written)
