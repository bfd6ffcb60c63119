"""Looks into models: which keys a place has, which of them are paths."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from daemon.config.errors import Mistake, Path
from daemon.config.yaml_errors import unreadable
from daemon.config.yaml_nodes import Node, read


def alternatives(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without `Annotated` and unions around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [each for one in get_args(annotation) for each in alternatives(one)]
    return [annotation]


def is_model(annotation: Any) -> bool:
    """Whether a type is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def fields(annotations: Iterable[Any]) -> dict[str, FieldInfo]:
    """The keys of all models among the types, as they are written."""
    models = [each for each in annotations if is_model(each)]
    return {f.alias or name: f for model in models for name, f in model.model_fields.items()}


def below(annotations: Iterable[Any], part: str | int) -> list[Any]:
    """The types that may stand at a key or index below any of the given types."""
    found: list[Any] = []
    for each in annotations:
        origin, arguments = get_origin(each), get_args(each)
        if is_model(each) and part in fields([each]):
            found += alternatives(fields([each])[str(part)].annotation)
        elif _is_mapping(each) and len(arguments) > 1:
            found += alternatives(arguments[1])
        elif isinstance(part, int) and origin in (list, tuple, Sequence) and arguments:
            found += alternatives(arguments[0])
    return found


def types_at(model: type[BaseModel], path: Sequence[str | int]) -> list[Any]:
    """The types that may stand at a path of a model.

    Args:
        model: the model at the root.
        path: keys and indices as written; names of union members in it narrow the choice.
    """
    at: list[Any] = [model]
    for part in path:
        member = [each for each in at if is_model(each) and part in _tags(each)]
        # The tag of a union that is no model, such as `list`, is no key either.
        at = member or below(at, part) or at
    return at


def keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that may stand below a path of a model; see `types_at`."""
    return list(fields(types_at(model, path)))


def choices_at(model: type[BaseModel], path: Sequence[str | int], key: str) -> list[str]:
    """What a key may say that chooses between the models at a path; see `types_at`."""
    found = [get_args(annotation) for annotation in below(types_at(model, path), key)]
    return [str(value) for values in found for value in values]


def prepare(node: Node, annotations: Sequence[Any], path: Path) -> tuple[Node, list[Mistake]]:
    """Resolves what a scalar means only together with the file that it stands in.

    Where a model has a path, a relative one starts at the folder of the file that names it. Where a
    model has a free mapping, a text names a JSON or YAML file that holds it.
    """
    if node.broken:
        return node, []
    if isinstance(node.value, str):
        return _scalar(node, annotations, path)
    mistakes: list[Mistake] = []
    value: Any = node.value
    if isinstance(value, dict | list):
        pairs = {}
        for part, child in node.children():
            pairs[part], wrong = prepare(child, below(annotations, part), (*path, part))
            mistakes += wrong
        value = pairs if isinstance(value, dict) else list(pairs.values())
    return replace(node, value=value), mistakes


def _is_mapping(annotation: Any) -> bool:
    return (get_origin(annotation) or annotation) in (dict, Mapping)


def _tags(model: type[BaseModel]) -> set[str]:
    literals = [get_args(field.annotation) for field in model.model_fields.values()]
    return {model.__name__, *(tag for tags in literals for tag in tags if isinstance(tag, str))}


def _scalar(node: Node, annotations: Sequence[Any], path: Path) -> tuple[Node, list[Mistake]]:
    folder = FilePath(node.place.file).parent
    if any(_is_mapping(each) for each in annotations):
        found, mistakes = _mapping_file(folder / node.value, node, path)
        return (replace(node, broken=True), mistakes) if mistakes else (replace(node, value=found.value), [])
    if FilePath in annotations and node.value:
        return replace(node, value=str((folder / node.value).absolute())), []
    return node, []


def _mapping_file(file: FilePath, node: Node, path: Path) -> tuple[Node, list[Mistake]]:
    if file.suffix != ".json":
        found, mistakes = read(file)
        if found is not None and not mistakes:
            return found, []
        wrong = mistakes[0]
    else:
        try:
            return node_of(json.loads(file.read_bytes().decode("utf-8-sig")), node), []
        except json.JSONDecodeError as error:
            remedy = "correct the JSON there"
            wrong = Mistake(file=str(file), line=error.lineno, message=error.msg, remedy=remedy)
        except (OSError, ValueError, RecursionError) as error:
            reason = error if isinstance(error, OSError | ValueError) else ValueError("nested too deeply")
            wrong = unreadable(str(file), file, reason)
    place = f"line {wrong.line}: " if wrong.line else ""
    return node, [node.mistake(path, f"the file {file}: {place}{wrong.message}", wrong.remedy)]


def node_of(value: Any, at: Node) -> Node:
    """A tree for plain values, all of it standing where `at` stands."""
    if isinstance(value, dict):
        value = {key: node_of(child, at) for key, child in value.items()}
    elif isinstance(value, list):
        value = [node_of(child, at) for child in value]
    return Node(value=value, place=at.place, key_place=at.key_place)
