"""Look into pydantic models: the types and keys that a place of a configuration may have."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def list_alternatives(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, without `Annotated` and unions around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return list_alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [each for one in get_args(annotation) for each in list_alternatives(one)]
    return [annotation]


def is_model(annotation: Any) -> bool:
    """Return whether a type is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def list_fields(annotations: Iterable[Any]) -> dict[str, FieldInfo]:
    """Return the keys of all models among the types, as they are written."""
    models = [each for each in annotations if is_model(each)]
    return {f.alias or name: f for model in models for name, f in model.model_fields.items()}


def types_below(annotations: Iterable[Any], part: str | int) -> list[Any]:
    """Return the types of the values at a key or index below any of the given types."""
    found: list[Any] = []
    for each in annotations:
        origin, arguments = get_origin(each), get_args(each)
        if is_model(each) and part in list_fields([each]):
            found += list_alternatives(list_fields([each])[str(part)].annotation)
        elif is_mapping(each) and len(arguments) > 1:
            found += list_alternatives(arguments[1])
        elif isinstance(part, int) and origin in (list, tuple, Sequence) and arguments:
            found += list_alternatives(arguments[0])
    return found


def types_at(model: type[BaseModel], path: Sequence[str | int]) -> list[Any]:
    """Return the types of the values at a path of a model.

    Args:
        model: the model at the root.
        path: keys and indices as written; names of union members in it narrow the choice.
    """
    at: list[Any] = [model]
    for part in path:
        member = [each for each in at if is_model(each) and part in _tags(each)]
        # A union's tag that is not the name of a model, such as `list`, is not a key either.
        at = member or types_below(at, part) or at
    return at


def keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys that are known below a path of a model; see `types_at`."""
    return list(list_fields(types_at(model, path)))


def choices_at(model: type[BaseModel], path: Sequence[str | int], key: str) -> list[str]:
    """Return the values of the key that chooses between the models at a path; see `types_at`."""
    found = [get_args(annotation) for annotation in types_below(types_at(model, path), key)]
    return [str(value) for values in found for value in values]


def is_mapping(annotation: Any) -> bool:
    """Return whether a type is a free mapping."""
    return (get_origin(annotation) or annotation) in (dict, Mapping)


def _tags(model: type[BaseModel]) -> set[str]:
    literals = [get_args(field.annotation) for field in model.model_fields.values()]
    return {model.__name__, *(tag for tags in literals for tag in tags if isinstance(tag, str))}
