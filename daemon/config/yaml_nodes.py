"""Reads YAML into nodes that know their line, for errors that an operator can act on.

Safe by construction: no tags, no objects, a bounded number of nodes. Three things differ from what
PyYAML's own loader does, each because that loader guesses where a configuration must not:

- a key that is given twice is a mistake, not "the last one wins";
- only `true` and `false` are booleans (YAML 1.2), so `no` and `off` stay text where text is asked for;
- `010`, `1:30` and `2024-01-01` stay text: no octal, base 60 or dates (YAML 1.2 core schema).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from daemon.config.errors import Mistake, Path, dotted
from daemon.config.yaml_errors import no_yaml, unreadable

#: More than any real configuration; a few lines of nested aliases can unfold into billions of nodes.
MAX_NODES = 100_000
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value and where it stands.

    Attributes:
        value: a scalar, or nodes by key, or nodes in order.
        place: where the value begins.
        key_place: where its key stands; None for items of a list and the root.
        written: a scalar as it was written, where it held `${...}`.
        broken: a mistake in this scalar has been reported, so its value means nothing.
    """

    value: Any
    place: Place
    key_place: Place | None = None
    written: str | None = None
    broken: bool = False

    @property
    def shown_at(self) -> Place:
        """The place to name: a scalar's own, or the key of a mapping or list."""
        return self.key_place if self.key_place and isinstance(self.value, dict | list) else self.place

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """The nodes right below, with their keys or indices."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def find(self, path: Path) -> Node | None:
        """The node at a path below this one; None where there is none."""
        node: Node | None = self
        for part in path:
            node = node.child(part) if node else None
        return node

    def child(self, part: str | int) -> Node | None:
        """The node at a key or index right below; None where there is none."""
        found: Node | None = None
        if isinstance(self.value, dict):
            found = self.value.get(part)
        elif isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            found = self.value[part]
        return found

    def only(self, *keys: str) -> Node:
        """The same mapping with just these keys."""
        return replace(self, value={key: node for key, node in self.value.items() if key in keys})

    def without(self, *keys: str) -> Node:
        """The same mapping without these keys."""
        return replace(self, value={key: node for key, node in self.value.items() if key not in keys})

    def plain(self) -> Any:
        """The values alone."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def mistake(self, path: Path, message: str, remedy: str, *, at_key: bool = False) -> Mistake:
        """A mistake at this node."""
        place = self.key_place if at_key and self.key_place else self.shown_at
        return Mistake(
            file=place.file,
            line=place.line,
            column=place.column,
            path=dotted(path),
            message=message,
            remedy=remedy,
        )


def read(path: FilePath, shown: str | None = None) -> tuple[Node | None, list[Mistake]]:
    """Reads one YAML file.

    Args:
        path: the file.
        shown: how to call it in messages; the path unless given.

    Returns:
        The root node, None where nothing could be read of it; and every mistake found.
    """
    file = shown or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        return None, [unreadable(file, path, error)]
    return parse(text, file)


def parse(text: str, file: str) -> tuple[Node | None, list[Mistake]]:
    """Parses YAML text; see `read`."""
    try:
        root = yaml.compose(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        return None, [no_yaml(file, text, error)]
    if root is None:
        return Node(value={}, place=Place(file=file)), []
    builder = _Builder(file)
    try:
        return builder.build(root, (), None), builder.mistakes
    except _TooMuchError:
        return None, builder.mistakes


class Loader(yaml.SafeLoader):
    """PyYAML's loader, used up to the tree of nodes, with the plain scalars of YAML 1.2's core schema."""

    # PyYAML keeps its resolvers on the class; a table of its own leaves out YAML 1.1's.
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


@dataclass(slots=True)
class _Builder:
    """Turns PyYAML's nodes into ours."""

    file: str
    mistakes: list[Mistake] = field(default_factory=list)
    count: int = 0
    open: set[int] = field(default_factory=set)

    def build(self, node: yaml.Node, path: Path, key_place: Place | None) -> Node:
        self._admit(node, path)
        before = len(self.mistakes)
        value: Any
        if isinstance(node, ScalarNode):
            value = self._scalar(node, path)
        else:
            self._check_tag(node, path)
        broken = len(self.mistakes) > before
        if not isinstance(node, ScalarNode):
            value = self._collection(node, path)
        return Node(value=value, place=self._place(node), key_place=key_place, broken=broken)

    def _collection(self, node: yaml.Node, path: Path) -> Any:
        self.open.add(id(node))
        value: Any
        if isinstance(node, SequenceNode):
            value = [self.build(item, (*path, index), None) for index, item in enumerate(node.value)]
        else:
            value = self._mapping(node, path)
        self.open.discard(id(node))
        return value

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = self._merged(value_node, path) | merged
            elif not isinstance(key_node, ScalarNode):
                self._wrong(key_node, path, "a key must be plain text", "write `key: value`")
            else:
                self._entry(found, key_node, value_node, path)
        return merged | found

    def _entry(self, found: dict[str, Node], key_node: ScalarNode, value: yaml.Node, path: Path) -> None:
        key = self._text(key_node, path)
        first = found.get(key)
        if first is not None:
            line = first.key_place.line if first.key_place else 0
            self._wrong(
                key_node,
                (*path, key),
                f"is given twice, on line {line} and on line {self._place(key_node).line}",
                "keep one of the two",
            )
            return
        found[key] = self.build(value, (*path, key), self._place(key_node))

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Node]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        found: dict[str, Node] = {}
        for source in sources:
            if isinstance(source, MappingNode):
                found = self.build(source, path, None).value | found
            else:
                self._wrong(source, path, "`<<` takes a mapping", "write `<<: *name` of an `&name` mapping")
        return found

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text = self._text(node, path)
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

    def _check_tag(self, node: yaml.Node, path: Path) -> None:
        if node.tag not in (_TAGS + "map", _TAGS + "seq"):
            tag = node.tag.replace(_TAGS, "!!")
            self._wrong(node, path, f"the tag {tag} is not known here", "remove the tag")

    def _text(self, node: ScalarNode, path: Path) -> str:
        text: str = node.value
        if text.isascii():
            return text
        try:
            # JSON escapes a character beyond U+FFFF as two surrogates; YAML takes them as two.
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._wrong(node, path, "holds half a character (a lone surrogate)", "write the character itself")
            return text.encode("utf-8", "replace").decode()

    def _admit(self, node: yaml.Node, path: Path) -> None:
        self.count += 1
        if id(node) in self.open:
            self._wrong(node, path, "an alias (`*name`) stands inside what it names", "remove the alias")
            raise _TooMuchError
        if self.count > MAX_NODES:
            self._wrong(
                node, path, f"unfolds into more than {MAX_NODES} values", "use fewer aliases (`*name`)"
            )
            raise _TooMuchError

    def _place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def _wrong(self, node: yaml.Node, path: Path, message: str, remedy: str) -> None:
        self.mistakes.append(Node(value=None, place=self._place(node)).mistake(path, message, remedy))
