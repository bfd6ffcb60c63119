"""Collects the files of a configuration into one tree: includes, interpolation, merging."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from daemon.config.errors import Path
from daemon.config.interpolate import Interpolator
from daemon.config.problems import Report
from daemon.config.yaml_nodes import Node, Place, read
from pillows.suggest import suggest

#: The sections that an included file may hold.
INCLUDED = ("version", "connections", "pillows")


@dataclass(slots=True)
class Files:
    """Reads a file and what it includes.

    Attributes:
        environ: the environment that `${...}` is filled from.
        report: takes what is wrong.
        secrets: every text that came from a file or a credential.
    """

    environ: Mapping[str, str]
    report: Report
    secrets: set[str] = field(default_factory=set)

    def collect(self, path: FilePath) -> Node | None:
        """The merged tree; None where the main file cannot be read at all."""
        root = self._file(path)
        if root is None:
            return None
        include = root.value.pop("include", None)
        for file in self._included(path, include) if include else []:
            other = self._file(file)
            if other is not None:
                root = self._merge(root, other)
        return root

    def _file(self, path: FilePath) -> Node | None:
        node, mistakes = read(path)
        self.report.mistakes.extend(mistakes)
        if node is None:
            return None
        if node.value is None:
            return replace(node, value={})
        if not isinstance(node.value, dict):
            self._wrong(node, (), "holds no mapping", "write `key: value` lines, the first `version: 1`")
            return None
        filler = Interpolator(environ=self.environ, folder=path.parent)
        node = filler.fill(node)
        self.report.mistakes.extend(filler.mistakes)
        self.secrets |= filler.secrets
        return node

    def _included(self, main: FilePath, include: Node) -> list[FilePath]:
        if not isinstance(include.value, list):
            self._wrong(include, ("include",), "needs a list", "write `include: [pillows.d/*.yaml]`")
            return []
        found: set[FilePath] = set()
        for index, item in enumerate(include.value):
            found |= self._matches(main, item, ("include", index))
        return sorted(found)

    def _matches(self, main: FilePath, item: Node, path: Path) -> set[FilePath]:
        if item.broken:
            return set()
        if not isinstance(item.value, str) or not item.value or "\0" in item.value:
            self._wrong(item, path, "needs a file or a glob", "write one such as pillows.d/*.yaml")
            return set()
        wild = glob.has_magic(item.value)
        matches = glob.glob(item.value, root_dir=main.parent, recursive=True)
        found = {main.parent / match for match in matches}
        if not found and not wild:
            self._wrong(item, path, f"there is no file {item.value}", _similar(main.parent / item.value))
        if not wild and any(file.is_file() and file.samefile(main) for file in found):
            self._wrong(item, path, "the file includes itself", "remove this line")
        return {file for file in found if not (file.is_file() and file.samefile(main))}

    def _merge(self, root: Node, other: Node) -> Node:
        merged = dict(root.value)
        for key, node in other.value.items():
            if key == "include":
                self._wrong(
                    node, (key,), "an included file cannot include others", "list them in the main file"
                )
            elif key not in INCLUDED:
                remedy = f"move it there; an included file has {', '.join(INCLUDED)}"
                self._wrong(node, (key,), "belongs into the main file", remedy)
            elif key == "version":
                self._check_version(node)
            elif key in merged:
                merged[key] = self._section(key, merged[key], node)
            else:
                merged[key] = node
        return replace(root, value=merged)

    def _check_version(self, node: Node) -> None:
        if node.value != 1 and not node.broken:
            self._wrong(node, ("version",), "is not a version that this pillowd reads", "write `version: 1`")

    def _section(self, name: str, first: Node, second: Node) -> Node:
        if second.value is None or not isinstance(first.value, dict):
            return first if first.value is not None else second
        if not isinstance(second.value, dict):
            self._wrong(second, (name,), "needs a mapping", "write `name:` with its keys below")
            return first
        for key in first.value.keys() & second.value.keys():
            self._twice(name, key, first.value[key], second.value[key])
        new = {key: node for key, node in second.value.items() if key not in first.value}
        return replace(first, value=first.value | new)

    def _twice(self, section: str, key: str, first: Node, second: Node) -> None:
        a, b = _key(first), _key(second)
        message = f"is defined twice, in {a.file} on line {a.line} and in {b.file} on line {b.line}"
        self._wrong(second, (section, key), message, "rename or remove one of the two")

    def _wrong(self, node: Node, path: Path, message: str, remedy: str) -> None:
        self.report.wrong(node, path, message, remedy, at_key=True)


def _key(node: Node) -> Place:
    return node.key_place or node.place


def _similar(path: FilePath) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either; check the path"
    known = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    return suggest(path.name, known, f"files in {path.parent}")
