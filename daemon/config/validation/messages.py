"""Turn pydantic's errors into problems: plain words, a place and a remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from daemon.config.problems import ConfigProblem, KeyPath, Place
from daemon.config.validation.model_introspection import choices_at, keys_at
from daemon.config.yaml.nodes import Node
from pillows.suggest import suggest

_SECRET_KEY = re.compile(r"(?i)pass|secret|token|key|dsn")
#: The first word of an error's type -> message and remedy.
_NEEDS = {
    "bool": ("needs true or false", "write `true` or `false`"),
    "int": ("needs a whole number", "write digits, such as `1000`"),
    "float": ("needs a number", "write a number, such as `0.5`"),
    "string": ("needs text", "put the value into quotes"),
    "list": ("needs a list", "write `[a, b]`, or one `- item` per line"),
    "tuple": ("needs a list", "write `[a, b]`, or one `- item` per line"),
    "dict": ("needs a mapping", "write `key: value` lines below it"),
    "mapping": ("needs a mapping", "write `key: value` lines below it"),
    "model": ("needs a mapping", "write `key: value` lines below it"),
    "path": ("needs a path", "write a path such as /var/lib/pillowd"),
    "url": ("needs a URL", "write one such as https://host:6984"),
}
_BOUNDS = {
    "greater_than": ("must be greater than {gt}", "raise it"),
    "greater_than_equal": ("must be at least {ge}", "raise it"),
    "less_than": ("must be less than {lt}", "lower it"),
    "less_than_equal": ("must be at most {le}", "lower it"),
    "multiple_of": ("must be a multiple of {multiple_of}", "round it"),
    "string_too_short": ("is shorter than {min_length} characters", "write more"),
    "string_too_long": ("is longer than {max_length} characters", "shorten it"),
    "too_short": ("has fewer than {min_length} entries", "add one"),
    "too_long": ("has more than {max_length} entries", "remove some"),
}
#: Message and remedy for the two patterns, which no operator should have to read.
_PATTERNS: dict[str, tuple[str, str]] = {
    "module:function": ("is not a valid `module:function`", "write it as `package.module:function`"),
    "name": ("is not a valid name", "use letters, digits, `_` and `-`, at most 63 of them"),
}


def to_problems(
    error: ValidationError, model: type[BaseModel], node: Node, path: KeyPath
) -> list[ConfigProblem]:
    """Return the problems for pydantic's errors, at most one for each place.

    Args:
        error: all errors of one validation.
        model: the model.
        node: the part of the tree that was validated; its `broken` values have been reported.
        path: its key path.
    """
    by_place: dict[tuple[Place, KeyPath], ConfigProblem] = {}
    for each in error.errors(include_url=False):
        problem = _to_problem(each, model, node, path)
        if problem is not None:  # each member of a union has its own complaint about one value
            by_place.setdefault((replace(problem.place, column=0), problem.path), problem)
    return list(by_place.values())


def _to_problem(
    error: ErrorDetails, model: type[BaseModel], node: Node, path: KeyPath
) -> ConfigProblem | None:
    """Return the problem for one of pydantic's errors; None if it has been reported already."""
    location = error["loc"]
    inner, at, is_unknown = _locate(node, location)
    path = (*path, *inner)
    kind = error["type"]
    if at.broken:
        return None
    if kind == "extra_forbidden":
        remedy = suggest(str(location[-1]), keys_at(model, location[:-1]), "keys here")
        return ConfigProblem(place=at.key_at, path=path, message="is not a known key", remedy=remedy)
    if kind == "missing":
        path = (*path, location[-1])
        remedy = "add `version: 1`" if path == ("version",) else f"add `{location[-1]}:`"
        return ConfigProblem(place=at.key_at, path=path, message="is missing", remedy=remedy)
    if kind.startswith("union_tag"):
        key = error["ctx"]["discriminator"].strip("'")
        return _explain_tag(at, (*path, key), choices_at(model, location, key))
    message, remedy = _explain(error, at, path)
    place = at.key_at if is_unknown else at.shown_at
    return ConfigProblem(place=place, path=path, message=message, remedy=remedy)


def _locate(node: Node, location: Sequence[str | int]) -> tuple[KeyPath, Node, bool]:
    """Follow an error's location, leaving out names of union members, which are not keys.

    Returns:
        The path that was found, its node, and whether the last part was not found.
    """
    path: list[str | int] = []
    missed = False
    for part in location:
        child = node.child(part)
        missed = child is None
        if child is not None:
            node = child
            path.append(part)
    return tuple(path), node, missed


def _explain_tag(at: Node, path: KeyPath, known: Sequence[str]) -> ConfigProblem | None:
    """Return the problem of a key that chooses between models, if it is missing or chooses none."""
    written = at.child(path[-1])
    if written is None:
        remedy = f"add `{path[-1]}:`, one of {', '.join(known)}"
        return ConfigProblem(place=at.key_at, path=path, message="is missing", remedy=remedy)
    if written.broken:
        return None
    message, remedy = _explain_choice(written, path, known)
    return ConfigProblem(place=written.shown_at, path=path, message=message, remedy=remedy)


def _expected(error: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", error["ctx"]["expected"]) or [error["ctx"]["expected"]]


def _explain_choice(at: Node, path: KeyPath, known: Sequence[str]) -> tuple[str, str]:
    hidden = at.written is not None or _SECRET_KEY.search(str(path[-1:]))
    wrong = "this" if hidden or isinstance(at.value, dict | list) else f"`{at.value}`"
    return f"{wrong} is not one of the allowed values", suggest(str(at.value), known, "values")


def _explain(error: ErrorDetails, at: Node, path: KeyPath) -> tuple[str, str]:
    """Return message and remedy for a value."""
    kind = error["type"]
    context = error.get("ctx", {})
    if kind in ("literal_error", "enum"):
        return _explain_choice(at, path, _expected(error))
    if kind.endswith("_type"):
        return _explain_type(kind, at)
    if kind == "value_error":
        return _split_message(str(context.get("error", error["msg"])))
    if kind in _BOUNDS:
        message, remedy = _BOUNDS[kind]
        return message.format(**context), remedy
    if kind == "string_pattern_mismatch":
        return _PATTERNS["module:function" if ":" in context["pattern"] else "name"]
    return _NEEDS.get(kind.partition("_")[0], (error["msg"][:1].lower() + error["msg"][1:], "correct it"))


def _explain_type(kind: str, at: Node) -> tuple[str, str]:
    if at.value is None:
        return "is empty", "give it a value, or remove the key"
    if kind == "string_type" and isinstance(at.value, dict | list):
        return "needs text", "write a single value"
    return _NEEDS.get(kind.partition("_")[0], ("has the wrong type", "correct it"))


def _split_message(text: str) -> tuple[str, str]:
    """Split the text of our own validators: `message; remedy`, or `message such as example`."""
    message, _, remedy = text.partition("; ")
    if not remedy and " such as " in text:
        message, _, example = text.partition(" such as ")
        remedy = f"write one such as {example}"
    return message.rstrip(" ,"), remedy or "correct it"
