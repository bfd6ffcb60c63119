"""Collects mistakes while a configuration is put together, so that all of them are said at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from daemon.config.errors import Mistake, Path
from daemon.config.model_introspection import prepare
from daemon.config.models import NAME
from daemon.config.validation_messages import validate
from daemon.config.yaml_nodes import Node
from pillows.options import Options


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong so far.

    Attributes:
        mistakes: all of it, in the order it was found.
    """

    mistakes: list[Mistake] = field(default_factory=list)

    def wrong(self, node: Node, path: Path, message: str, remedy: str, *, at_key: bool = False) -> None:
        """Notes a mistake at a node."""
        self.mistakes.append(node.mistake(path, message, remedy, at_key=at_key))

    def validated(
        self, model: type[Options], node: Node, path: Path, given: dict[str, object] | None = None
    ) -> Options | None:
        """What was written as an instance of a model; None where that has mistakes, which are noted.

        Args:
            model: what it must be.
            node: what was written.
            path: its key path.
            given: values that replace what was written, already validated.
        """
        prepared, wrong = prepare(node, [model], path)
        options, more = validate(model, prepared, path, given)
        self.mistakes.extend([*wrong, *more])
        return None if wrong else options

    def section(self, root: Node, section: str) -> Iterator[tuple[str, Node]]:
        """Name and node of every entry of a section that holds a mapping; the others are noted."""
        found = root.find((section,))
        if found is None or found.value is None:
            return
        if not isinstance(found.value, dict):
            self.wrong(found, (section,), "needs a mapping", "write one `name:` per entry, its keys below")
            return
        for name, node in found.value.items():
            path = (section, name)
            if not re.fullmatch(NAME, name):
                remedy = "use letters, digits, `_` and `-`, at most 63 of them"
                self.wrong(node, path, f"{name!r} is no name", remedy)
            if isinstance(node.value, dict):
                yield name, node
            elif not node.broken:
                self.wrong(node, path, "needs a mapping", "write `key: value` lines below it")
