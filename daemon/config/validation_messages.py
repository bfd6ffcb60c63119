"""Says in plain words, with place and remedy, what pydantic found wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from daemon.config.errors import Mistake, Path
from daemon.config.model_introspection import choices_at, keys_at
from daemon.config.yaml_nodes import Node
from pillows.options import WRITTEN, Options
from pillows.suggest import suggest

_SECRET_KEY = re.compile(r"(?i)pass|secret|token|key|dsn")
#: Kind of error -> what is wrong, and what to do.
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
#: What a pattern means, for patterns that an operator should not have to read.
_PATTERNS: dict[str, tuple[str, str]] = {
    "module:function": ("is no `module:function`", "write it as `package.module:function`"),
    "name": ("is no name", "use letters, digits, `_` and `-`, at most 63 of them"),
}


def validate(
    model: type[Options], node: Node, path: Path, given: dict[str, Any] | None = None
) -> tuple[Options | None, list[Mistake]]:
    """Validates what was written against a model.

    Args:
        model: what it must be.
        node: what was written.
        path: its key path from the root.
        given: values that replace what was written, already validated.

    Returns:
        The model's instance, None with mistakes; and the mistakes.
    """
    plain = node.plain()
    data = plain | given if given and isinstance(plain, dict) else plain
    try:
        return model.model_validate(data, context=WRITTEN), []
    except ValidationError as error:
        found = [translate(each, model, node, path) for each in error.errors(include_url=False)]
        return None, _without_doubles([mistake for mistake in found if mistake])


def translate(error: ErrorDetails, model: type[BaseModel], node: Node, path: Path) -> Mistake | None:
    """The mistake for one of pydantic's errors; None where another mistake has said it already."""
    location = error["loc"]
    inner, at, unknown = _locate(node, location)
    here = (*path, *inner)
    kind = error["type"]
    if at.broken:
        return None
    if kind == "extra_forbidden":
        keys = keys_at(model, location[:-1])
        return at.mistake(here, "is no known key", suggest(str(location[-1]), keys, "keys here"), at_key=True)
    if kind == "missing":
        missing = (*here, location[-1])
        remedy = "add `version: 1`" if missing == ("version",) else f"add `{location[-1]}:`"
        return at.mistake(missing, "is missing", remedy, at_key=True)
    if kind.startswith("union_tag"):
        key = error["ctx"]["discriminator"].strip("'")
        return _tag(at, here, key, choices_at(model, location, key))
    message, remedy = _words(error, at, here)
    return at.mistake(here, message, remedy, at_key=unknown)


def _locate(node: Node, location: Sequence[str | int]) -> tuple[Path, Node, bool]:
    """Follows an error's location; names of union members in it are no keys and are left out."""
    path: list[str | int] = []
    missed = False
    for part in location:
        child = node.child(part)
        missed = child is None
        if child is not None:
            node = child
            path.append(part)
    return tuple(path), node, missed


def _tag(at: Node, path: Path, key: str, known: Sequence[str]) -> Mistake | None:
    """The key that chooses between several models is missing, or chooses none."""
    written = at.child(key)
    if written is None:
        remedy = f"add `{key}:`, one of {', '.join(known)}"
        return at.mistake((*path, key), "is missing", remedy, at_key=True)
    return None if written.broken else written.mistake((*path, key), *_choice(written, path, known))


def _expected(error: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", error["ctx"]["expected"]) or [error["ctx"]["expected"]]


def _choice(at: Node, path: Path, known: Sequence[str]) -> tuple[str, str]:
    hidden = at.written is not None or _SECRET_KEY.search(str(path[-1:]))
    wrong = "this" if hidden or isinstance(at.value, dict | list) else f"`{at.value}`"
    return f"{wrong} is none of the values it can have", suggest(str(at.value), known, "values")


def _words(error: ErrorDetails, at: Node, path: Path) -> tuple[str, str]:
    """What is wrong with a value, and what to do."""
    kind = error["type"]
    context = error.get("ctx", {})
    if kind in ("literal_error", "enum"):
        return _choice(at, path, _expected(error))
    if kind.endswith("_type"):
        return _type(kind, at)
    if kind == "value_error":
        return _own_words(str(context.get("error", error["msg"])))
    if kind in _BOUNDS:
        message, remedy = _BOUNDS[kind]
        return message.format(**context), remedy
    if kind == "string_pattern_mismatch":
        return _PATTERNS["module:function" if ":" in context["pattern"] else "name"]
    return _NEEDS.get(kind.partition("_")[0], (error["msg"][:1].lower() + error["msg"][1:], "correct it"))


def _type(kind: str, at: Node) -> tuple[str, str]:
    if at.value is None:
        return "is empty", "give it a value, or remove the key"
    if kind == "string_type" and isinstance(at.value, dict | list):
        return "needs text", "write a single value"
    return _NEEDS.get(kind.partition("_")[0], ("has the wrong type", "correct it"))


def _own_words(text: str) -> tuple[str, str]:
    """A validator's own message, which says `what is wrong; what to do` or gives an example."""
    message, _, remedy = text.partition("; ")
    if not remedy and " such as " in text:
        message, _, example = text.partition(" such as ")
        remedy = f"write one such as {example}"
    return message.rstrip(" ,"), remedy or "correct it"


def _without_doubles(mistakes: list[Mistake]) -> list[Mistake]:
    """One mistake per place: each member of a union has its own complaint about one value."""
    by_place: dict[tuple[str, int, str], Mistake] = {}
    for mistake in mistakes:
        by_place.setdefault((mistake.file, mistake.line, mistake.path), mistake)
    return list(by_place.values())
