"""Validate parts of a configuration against their models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from daemon.config.models import NAME
from daemon.config.problems import KeyPath, ProblemCollector
from daemon.config.validation.file_references import resolve_files
from daemon.config.validation.messages import to_problems
from daemon.config.yaml.nodes import Node
from pillows.options import WRITTEN, Options

_Model = TypeVar("_Model", bound=Options)


def validate(
    model: type[_Model], node: Node, path: KeyPath, given: Mapping[str, object] | None = None
) -> tuple[_Model | None, ProblemCollector]:
    """Validate a part of the tree against a model.

    Args:
        model: the model.
        node: the part of the tree.
        path: its key path.
        given: values that are validated already, and replace those in the tree.

    Returns:
        The model's instance, None with problems; and the problems.
    """
    resolved, problems = resolve_files(node, [model], path)
    plain = resolved.to_plain()
    data = {**plain, **given} if given and isinstance(plain, dict) else plain
    try:
        value = model.model_validate(data, context=WRITTEN)
    except ValidationError as error:
        problems += to_problems(error, model, resolved, path)
        return None, problems
    return (None if problems else value), problems


def validate_section(root: Node, section: str) -> tuple[dict[str, Node], ProblemCollector]:
    """Check the form of a section that holds one mapping per name.

    Returns:
        Every entry that is a mapping; and the problems.
    """
    problems = ProblemCollector()
    entries: dict[str, Node] = {}
    found = root.find((section,))
    if found is None or found.value is None:
        return entries, problems
    if not isinstance(found.value, dict):
        remedy = "write one `name:` per entry, its keys below"
        problems.add(found.shown_at, (section,), "needs a mapping", remedy)
        return entries, problems
    for name, node in found.value.items():
        path = (section, name)
        if not re.fullmatch(NAME, name):
            remedy = "use letters, digits, `_` and `-`, at most 63 of them"
            problems.add(node.shown_at, path, f"{name!r} is not a valid name", remedy)
        if isinstance(node.value, dict):
            entries[name] = node
        elif not node.broken:
            problems.add(node.shown_at, path, "needs a mapping", "write `key: value` lines below it")
    return entries, problems
