"""Read YAML into nodes that know their line, for errors that an operator can act on.

Safe by construction: no tags, no objects, a bounded number of nodes. Three things differ from PyYAML's own
loader, which guesses where a configuration must not:

- a key that is given twice is a problem, not "the last one wins";
- only `true` and `false` are booleans (YAML 1.2), so `no` and `off` stay text where text is asked for;
- `010`, `1:30` and `2024-01-01` stay text: no octal, base 60 or dates (YAML 1.2 core schema).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, ClassVar

import yaml
from msgspec import Struct, field
from msgspec.structs import replace
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from daemon.config.problems import KeyPath, Place, ProblemCollector
from daemon.config.yaml.errors import explain_unparsable, explain_unreadable

#: More than any real configuration; a few lines of nested aliases can unfold into billions of nodes.
MAX_NODES = 100_000
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = "tag:yaml.org,2002:"


class Node(Struct, frozen=True, kw_only=True):
    """A value and its place.

    Attributes:
        value: a scalar, or nodes by key, or nodes in order.
        place: the beginning of the value.
        key_place: the place of its key; None for items of a list and the root.
        written: a scalar as it was written, if it held `${...}`.
        broken: a problem of this scalar has been reported, so its value means nothing.
    """

    value: Any
    place: Place
    key_place: Place | None = None
    written: str | None = None
    broken: bool = False

    @property
    def shown_at(self) -> Place:
        """The place at which a problem with the value is reported.

        That is a scalar's own place, or the place of the key of a mapping or list.
        """
        return self.key_at if isinstance(self.value, dict | list) else self.place

    @property
    def key_at(self) -> Place:
        """The place of the key; of the value if it has no key."""
        return self.key_place or self.place

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Yield the nodes right below, with their keys or indices."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def find(self, path: KeyPath) -> Node | None:
        """Return the node at a path below this one; None if there is none."""
        node: Node | None = self
        for part in path:
            node = node.child(part) if node else None
        return node

    def child(self, part: str | int) -> Node | None:
        """Return the node at a key or index right below; None if there is none."""
        found: Node | None = None
        if isinstance(self.value, dict):
            found = self.value.get(part)
        elif isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            found = self.value[part]
        return found

    def only(self, *keys: str) -> Node:
        """Return the same mapping with these keys only."""
        return replace(self, value={key: node for key, node in self.value.items() if key in keys})

    def without(self, *keys: str) -> Node:
        """Return the same mapping without these keys."""
        return replace(self, value={key: node for key, node in self.value.items() if key not in keys})

    def to_plain(self) -> Any:
        """Return the values without their places."""
        if isinstance(self.value, dict):
            return {key: child.to_plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.to_plain() for child in self.value]
        return self.value


def read_yaml(path: FilePath) -> tuple[Node | None, ProblemCollector]:
    """Read one YAML file.

    Returns:
        The root node, None if nothing of it could be read; and the problems.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        return None, ProblemCollector([explain_unreadable(path, error)])
    return parse_yaml(text, str(path))


def parse_yaml(text: str, file: str) -> tuple[Node | None, ProblemCollector]:
    """Parse YAML text.

    Args:
        text: the text.
        file: its name in problems.

    Returns:
        As `read_yaml`.
    """
    try:
        root = yaml.compose(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        return None, ProblemCollector([explain_unparsable(file, text, error)])
    if root is None:
        return Node(value={}, place=Place(file=file)), ProblemCollector()
    builder = _Builder(file)
    try:
        return builder.build(root, (), None), builder.problems
    except _TooMuchError:
        return None, builder.problems


class Loader(yaml.SafeLoader):
    """PyYAML's loader with the plain scalars of YAML 1.2's core schema; it makes nodes only, no objects."""

    # PyYAML keeps its resolvers on the class; an own table leaves out YAML 1.1's.
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc]


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,300})", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?<=[0-9])", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    Loader.add_implicit_resolver(_TAGS + _tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


class _TooMuchError(Exception):
    """The document unfolds into too many nodes, or into itself."""


class _Builder(Struct):
    file: str
    problems: ProblemCollector = field(default_factory=ProblemCollector)
    count: int = 0
    open: set[int] = field(default_factory=set)

    def build(self, node: yaml.Node, path: KeyPath, key_place: Place | None) -> Node:
        self._check_limits(node, path)
        before = len(self.problems)
        value: Any
        if isinstance(node, ScalarNode):
            value = self._to_scalar(node, path)
        else:
            self._check_tag(node, path)
        broken = len(self.problems) > before
        if not isinstance(node, ScalarNode):
            value = self._build_collection(node, path)
        return Node(value=value, place=self._place(node), key_place=key_place, broken=broken)

    def _build_collection(self, node: yaml.Node, path: KeyPath) -> Any:
        self.open.add(id(node))
        value: Any
        if isinstance(node, SequenceNode):
            value = [self.build(item, (*path, index), None) for index, item in enumerate(node.value)]
        else:
            value = self._build_mapping(node, path)
        self.open.discard(id(node))
        return value

    def _build_mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = self._build_merged(value_node, path) | merged
            elif not isinstance(key_node, ScalarNode):
                self._add(key_node, path, "a key must be plain text", "write `key: value`")
            else:
                self._build_entry(found, key_node, value_node, path)
        return merged | found

    def _build_entry(
        self, found: dict[str, Node], key_node: ScalarNode, value: yaml.Node, path: KeyPath
    ) -> None:
        key = self._to_text(key_node, path)
        first = found.get(key)
        if first is not None:
            line = first.key_place.line if first.key_place else 0
            self._add(
                key_node,
                (*path, key),
                f"is given twice, on line {line} and on line {self._place(key_node).line}",
                "keep one of the two",
            )
            return
        found[key] = self.build(value, (*path, key), self._place(key_node))

    def _build_merged(self, node: yaml.Node, path: KeyPath) -> dict[str, Node]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        found: dict[str, Node] = {}
        for source in sources:
            if isinstance(source, MappingNode):
                found = self.build(source, path, None).value | found
            else:
                self._add(source, path, "`<<` takes a mapping", "write `<<: *name` of an `&name` mapping")
        return found

    def _to_scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text = self._to_text(node, path)
        match node.tag.removeprefix(_TAGS):
            case "str" | "merge":
                return text
            case "bool":
                return text.lower() == "true"
            case "null":
                return None
            case "int" if re.fullmatch(r"[-+]?[0-9]{1,300}", text):
                return int(text)
            case "float" if re.fullmatch(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", text) and text.count(".") < 2:
                return float(text)
        self._check_tag(node, path)
        return text

    def _check_tag(self, node: yaml.Node, path: KeyPath) -> None:
        if node.tag not in (_TAGS + "map", _TAGS + "seq"):
            tag = node.tag.replace(_TAGS, "!!")
            self._add(node, path, f"the tag {tag} is not known here", "remove the tag")

    def _to_text(self, node: ScalarNode, path: KeyPath) -> str:
        text: str = node.value
        if text.isascii():
            return text
        try:
            # JSON escapes a character beyond U+FFFF as two surrogates; YAML takes them as two.
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._add(node, path, "holds half a character (a lone surrogate)", "write the character itself")
            return text.encode("utf-8", "replace").decode()

    def _check_limits(self, node: yaml.Node, path: KeyPath) -> None:
        self.count += 1
        if id(node) in self.open:
            self._add(node, path, "an alias (`*name`) is inside the value that it names", "remove the alias")
            raise _TooMuchError
        if self.count > MAX_NODES:
            self._add(node, path, f"unfolds into more than {MAX_NODES} values", "use fewer aliases (`*name`)")
            raise _TooMuchError

    def _place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def _add(self, node: yaml.Node, path: KeyPath, message: str, remedy: str) -> None:
        self.problems.add(self._place(node), path, message, remedy)
