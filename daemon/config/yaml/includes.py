"""Load the files of a configuration into one tree: the main file, and those that it includes.

`${...}` is filled file by file, since `${file:...}` starts at the folder of its own file.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from daemon.config.environment import IN_ENVIRONMENT, VARIABLE
from daemon.config.problems import KeyPath, Place, ProblemCollector
from daemon.config.trust import check_file
from daemon.config.yaml.errors import suggest_file
from daemon.config.yaml.interpolate import Interpolated, interpolate
from daemon.config.yaml.nodes import Node, parse_yaml, read_yaml
from pillows.errors import ConfigError

#: The sections that an included file may hold.
INCLUDED = ("version", "connections", "pillows")


def load_tree(path: Path, environ: Mapping[str, str]) -> tuple[Interpolated | None, ProblemCollector]:
    """Load a file and all that it includes.

    Args:
        path: the main file, or `IN_ENVIRONMENT`; includes are then relative to the working directory.
        environ: the environment that `${...}` is filled from.

    Returns:
        The merged tree, None if the main file cannot be read at all; and the problems.
    """
    problems = ProblemCollector()
    main = problems.take(_load_file(path, environ))
    include = main.node.find(("include",)) if main else None
    if main is None or include is None:
        return main, problems
    root, secrets = main.node.without("include"), main.secrets
    for file in _list_included(path, include, problems):
        other = problems.take(_load_file(file, environ))
        if other is not None:
            root = _merge(root, other.node, problems)
            secrets |= other.secrets
    return Interpolated(node=root, secrets=secrets), problems


def _load_file(path: Path, environ: Mapping[str, str]) -> tuple[Interpolated | None, ProblemCollector]:
    node, problems = _read_file(path, environ)
    if node is None:
        return None, problems
    if node.value is None:
        return Interpolated(node=replace(node, value={})), problems
    if not isinstance(node.value, dict):
        problems.add(
            node.key_at, (), "does not hold a mapping", "write `key: value` lines, the first `version: 1`"
        )
        return None, problems
    return problems.take(interpolate(node, environ, path.parent)), problems


def _read_file(path: Path, environ: Mapping[str, str]) -> tuple[Node | None, ProblemCollector]:
    if path == IN_ENVIRONMENT:
        return parse_yaml(environ.get(VARIABLE, ""), str(path))
    try:
        check_file(path)
    except ConfigError as error:
        problems = ProblemCollector()
        problems.add(Place(file=str(path)), (), error.args[0], error.remedy)
        return None, problems
    return read_yaml(path)


def _list_included(main: Path, include: Node, problems: ProblemCollector) -> list[Path]:
    if not isinstance(include.value, list):
        problems.add(include.key_at, ("include",), "needs a list", "write `include: [pillows.d/*.yaml]`")
        return []
    found: set[Path] = set()
    for index, item in enumerate(include.value):
        if not item.broken:
            found |= _find_files(main, item, ("include", index), problems)
    return sorted(found)


def _find_files(main: Path, item: Node, path: KeyPath, problems: ProblemCollector) -> set[Path]:
    if not isinstance(item.value, str) or not item.value or "\0" in item.value:
        problems.add(item.key_at, path, "needs a file or a glob", "write one such as pillows.d/*.yaml")
        return set()
    is_glob = glob.has_magic(item.value)
    found = {main.parent / match for match in glob.glob(item.value, root_dir=main.parent, recursive=True)}
    itself = {file for file in found if file.is_file() and main.exists() and file.samefile(main)}
    if not found and not is_glob:
        remedy = suggest_file(main.parent / item.value)
        problems.add(item.key_at, path, f"there is no file {item.value}", remedy)
    if itself and not is_glob:
        problems.add(item.key_at, path, "the file includes itself", "remove this line")
    return found - itself


def _merge(root: Node, other: Node, problems: ProblemCollector) -> Node:
    merged = dict(root.value)
    for key, node in other.value.items():
        if key == "include":
            message = "an included file cannot include others"
            problems.add(node.key_at, (key,), message, "list them in the main file")
        elif key not in INCLUDED:
            remedy = f"move it there; an included file has {', '.join(INCLUDED)}"
            problems.add(node.key_at, (key,), "belongs into the main file", remedy)
        elif key == "version":
            if node.value != 1 and not node.broken:
                message = "is not a version that this pillowd reads"
                problems.add(node.key_at, (key,), message, "write `version: 1`")
        else:
            merged[key] = _merge_section(key, merged[key], node, problems) if key in merged else node
    return replace(root, value=merged)


def _merge_section(name: str, first: Node, second: Node, problems: ProblemCollector) -> Node:
    if second.value is None or not isinstance(first.value, dict):
        return first if first.value is not None else second
    if not isinstance(second.value, dict):
        problems.add(second.key_at, (name,), "needs a mapping", "write `name:` with its keys below")
        return first
    for key in first.value.keys() & second.value.keys():
        a, b = first.value[key].key_at, second.value[key].key_at
        message = f"is defined twice, in {a.file} on line {a.line} and in {b.file} on line {b.line}"
        problems.add(b, (name, key), message, "rename or remove one of the two")
    new = {key: node for key, node in second.value.items() if key not in first.value}
    return replace(first, value=first.value | new)
