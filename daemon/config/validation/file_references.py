"""Resolve the file names in a configuration, which mean something only together with the file they are in.

A relative path starts at the folder of the file that names it. A text in place of a mapping names a JSON or
YAML file that holds the mapping.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from daemon.config.problems import ConfigProblem, KeyPath, Place, ProblemCollector
from daemon.config.validation.model_introspection import is_mapping, types_below
from daemon.config.yaml.errors import explain_unreadable
from daemon.config.yaml.nodes import Node, read_yaml


def resolve_files(node: Node, annotations: Sequence[Any], path: KeyPath) -> tuple[Node, ProblemCollector]:
    """Return a tree with absolute paths, and with the content of the mapping files that it names.

    Args:
        node: the tree.
        annotations: the types that its value may have.
        path: its key path.

    Returns:
        The tree, in which an unreadable mapping file is marked `broken`; and the problems.
    """
    problems = ProblemCollector()
    if node.broken:
        return node, problems
    if isinstance(node.value, str):
        return _resolve_text(node, node.value, annotations, path)
    if not isinstance(node.value, dict | list):
        return node, problems
    resolved: dict[str | int, Node] = {}
    for part, child in node.children():
        types = types_below(annotations, part)
        resolved[part] = problems.take(resolve_files(child, types, (*path, part)))
    value = resolved if isinstance(node.value, dict) else list(resolved.values())
    return replace(node, value=value), problems


def _resolve_text(
    node: Node, text: str, annotations: Sequence[Any], path: KeyPath
) -> tuple[Node, ProblemCollector]:
    problems = ProblemCollector()
    file = Path(node.place.file).parent / text
    if any(is_mapping(each) for each in annotations):
        content = _read_mapping(file, node)
        if isinstance(content, Node):
            return replace(node, value=content.value), problems
        problem, line = content, content.place.line
        place = f"line {line}: " if line else ""
        problems.add(node.shown_at, path, f"the file {file}: {place}{problem.message}", problem.remedy)
        return replace(node, broken=True), problems
    if Path in annotations and text:
        return replace(node, value=str(file.absolute())), problems
    return node, problems


def _read_mapping(file: Path, at: Node) -> Node | ConfigProblem:
    if file.suffix != ".json":
        found, problems = read_yaml(file)
        return problems[0] if found is None or problems else found
    try:
        return _to_node(json.loads(file.read_bytes().decode("utf-8-sig")), at)
    except json.JSONDecodeError as error:
        place = Place(file=str(file), line=error.lineno)
        return ConfigProblem(place=place, message=error.msg, remedy="correct the JSON there")
    except (OSError, ValueError) as error:
        return explain_unreadable(file, error)
    except RecursionError:
        return explain_unreadable(file, ValueError("nested too deeply"))


def _to_node(value: Any, at: Node) -> Node:
    """Return a tree for plain values, with the place of `at` everywhere."""
    if isinstance(value, dict):
        value = {key: _to_node(child, at) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_to_node(child, at) for child in value]
    return Node(value=value, place=at.place, key_place=at.key_place)
