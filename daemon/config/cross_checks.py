"""Looks at a pillow as a whole: do its outputs, transform, transports and source fit together?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from daemon.config.connections import Connections
from daemon.config.errors import Path
from daemon.config.models import PillowConfig
from daemon.config.output_ownership import places
from daemon.config.problems import Report
from daemon.config.yaml_nodes import Node
from pillows.options import OutputOptions
from pillows.suggest import suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A pillow and what was written of it.

    Attributes:
        pillow: the pillow, each key right by itself.
        node: what was written.
        path: its key path.
        connections: what it refers to.
        report: takes what is wrong.
    """

    pillow: PillowConfig
    node: Node
    path: Path
    connections: Connections
    report: Report

    def look(self, broken: Collection[str]) -> None:
        """Notes what does not fit together.

        Args:
            broken: keys that had mistakes; what cannot be said without them is left.
        """
        looks = (
            (self._outputs, {"outputs"}),
            (self._filled, {"outputs", "transform"}),
            (self._steps, {"outputs", "transform"}),
            (self._pace, {"transport"}),
            (self._lanes, {"batch", "transport"}),
            (self._loop, {"source", "transport"}),
        )
        for look, needed in looks:
            if needed.isdisjoint(broken):
                look()

    def _wrong(self, at: Path, message: str, remedy: str, *, at_key: bool = False) -> None:
        here = self.node.find(at) or self.node
        self.report.wrong(here, (*self.path, *at), message, remedy, at_key=at_key)

    def _outputs(self) -> None:
        """Every declared output is declared once, and goes somewhere."""
        outputs, written = self.pillow.outputs, self._written()
        for index, name in enumerate(outputs):
            if name in outputs[:index]:
                self._wrong(("outputs", index), f"`{name}` is declared twice", "remove one of the two")
            elif name not in written:
                remedy = "add it to the `outputs` of a transport, or remove it here"
                self._wrong(("outputs", index), f"no transport writes the output `{name}`", remedy)

    def _written(self) -> set[str]:
        """The outputs that transports name, right or wrong otherwise; all where that can't be told."""
        declared = set(self.pillow.outputs)
        listed = self.node.find(("transport",))
        if listed is None or not listed.value or not isinstance(listed.value, list):
            return declared
        found: set[str] = set()
        for entry in listed.value:
            named = entry.find(("outputs",))
            found |= {str(key) for key, _ in named.children()} if named else {*self.pillow.outputs[:1]}
        return found if found <= declared else declared  # a name that is none may be meant for any

    def _filled(self) -> None:
        """Every output beside the first gets rows from somewhere."""
        outputs, written = self.pillow.outputs, self._written()
        for index, name in enumerate(outputs):
            if not index or name in outputs[:index] or name not in written or self._may_fill(name):
                continue
            message = f"nothing fills `{name}`: without a transform, documents go into the first output"
            if self.pillow.transform is not None:
                message = f"nothing fills `{name}`: no step of the transform has `rows` for it"
            self._wrong(("outputs", index), message, "add a `transform`, or remove this output")

    def _may_fill(self, output: str) -> bool:
        steps = self.pillow.steps
        return any(output in step.rows for step in steps) or any(step.is_python for step in steps[-1:])

    def _steps(self) -> None:
        """A step fills declared outputs, each output from one step; a chunked function stands alone."""
        filled: set[str] = set()
        for index, step in enumerate(self.pillow.steps):
            at: Path = ("transform", index) if isinstance(self.pillow.transform, tuple) else ("transform",)
            for output in step.rows:
                self._step_output((*at, "rows", output), output, filled)
                filled.add(output)
            if step.chunk is not None and len(self.pillow.steps) > 1:
                message = "a function that gets chunks is the only step"
                self._wrong((*at, "chunk"), message, "do the rest in the function, or leave out `chunk`")

    def _step_output(self, at: Path, output: str, filled: Collection[str]) -> None:
        if output not in self.pillow.outputs:
            remedy = suggest(output, self.pillow.outputs, "outputs of the pillow")
            message = f"`{output}` is not declared in the pillow's `outputs`"
            self._wrong(at, message, remedy, at_key=True)
        elif output in filled:
            self._wrong(at, f"`{output}` gets rows from two steps", "leave one of them", at_key=True)

    def _pace(self) -> None:
        """One transport at least has the pillow's own name and checkpoint."""
        if all(entry.own_pace for entry in self.pillow.transport):
            message = "no transport of the pillow is left to go by its name"
            self._wrong(("transport", 0, "own_pace"), message, "remove it from one transport")

    def _lanes(self) -> None:
        """Several batches in flight need a target that takes them: many write one after the other."""
        if self.pillow.batch.max_in_flight == 1:
            return
        for name in dict.fromkeys(entry.connection for entry in self.pillow.transport):
            if not self.connections.transports[name].concurrent:
                message = f"`{name}` ({self.connections.types[name]}) writes one batch after the other"
                self._wrong(("batch", "max_in_flight"), message, "set it to 1")

    def _loop(self) -> None:
        """No output is the database that the pillow reads: it would read what it has written, for ever."""
        name = self.pillow.source.connection
        if name not in self.connections.transports:  # it has a mistake, which is said there
            return
        model: Any = self.connections.transports[name].Output
        read = self._places(name, model.model_construct(database=self.pillow.source.database))
        for index, entry in enumerate(self.pillow.transport):
            for output in entry.outputs.values():
                if read & self._places(entry.connection, output):
                    message = "writes the database that it reads"
                    self._wrong(("transport", index), message, "name another database")

    def _places(self, name: str, output: OutputOptions) -> frozenset[tuple[str, ...]]:
        entry = self.connections.entries.get(name)
        spelled = (name, str(getattr(output, "database", "")))
        return places(output, entry.options if entry else None, spelled)
