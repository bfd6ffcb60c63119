"""Paths into documents: picking a value, and changed copies that leave the original alone.

A path is a dotted name (`address.city`, `form.@xmlns`), or a JMESPath expression
(`lines[0].price`, `length(lines)`) where a value is only read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import methodcaller
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.visitor import TreeInterpreter

from pillows.errors import PermanentError

#: Reads a value out of a document; None where the path leads nowhere.
Getter = Callable[[Mapping[str, Any]], Any]

# Names joined by dots, in which JMESPath's own signs do not occur. CommCare's `form.@xmlns` and
# names with a hyphen are names here, though JMESPath would want them quoted.
_DOTTED = re.compile(r"(?!@$)[^\s.\[\](){}|&'\"`*?,!<>=]+(\.[^\s.\[\](){}|&'\"`*?,!<>=]+)*")


def getter(path: str) -> Getter:
    """Return a function that reads the value at a path.

    Raises:
        ValueError: it is neither a dotted name nor JMESPath.
    """
    if _DOTTED.fullmatch(path):
        names = path.split(".")
        # A function in Python takes twice as long.
        return methodcaller("get", names[0]) if len(names) == 1 else _dotted(names)
    try:
        return _searched(path, jmespath.compile(path).parsed)
    except (JMESPathError, RecursionError) as error:
        raise ValueError(f"{path!r} is not a valid path: {str(error).splitlines()[0]}") from error


def split(path: str) -> tuple[str, ...]:
    """Return the names of a dotted path.

    Raises:
        ValueError: the text is not a dotted path.
    """
    if not _DOTTED.fullmatch(path):
        raise ValueError(f"{path!r} is not a name or dotted path")
    return tuple(path.split("."))


def set_path(row: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set a value in a row that the caller may change; mappings on the way there are copied first."""
    *way, last = names
    for name in way:
        inner = row.get(name)
        row[name] = dict(inner) if isinstance(inner, dict) else {}
        row = row[name]
    row[last] = value


def copy_with(value: Any, names: Sequence[str], change: Callable[[dict[str, Any], str], None]) -> Any:
    """Return a copy of a value with `change(mapping, name)` applied at a dotted path, if that exists.

    A list on the way means each of its elements.
    """
    if isinstance(value, list):
        return [copy_with(element, names, change) for element in value]
    name = names[0]
    if not isinstance(value, dict) or name not in value:
        return value
    copy = dict(value)
    if len(names) == 1:
        change(copy, name)
    else:
        copy[name] = copy_with(copy[name], names[1:], change)
    return copy


def describe_mismatch(expression: str, error: JMESPathError) -> str:
    """Say why an expression does not fit a document, without any value of it."""
    # Only this one quotes a value; the others name a function that is unknown or has too few arguments.
    if isinstance(error, JMESPathTypeError):
        wanted = ", ".join(error.expected_types)
        reason = f"{error.function_name}() needs {wanted}, not {error.actual_type}"
    else:
        reason = str(error)
    return f"{expression!r} does not fit the document: {reason}."


def _dotted(names: Sequence[str]) -> Getter:
    def get(row: Mapping[str, Any]) -> Any:
        value: Any = row
        for name in names:
            # Asking for `dict` first: a check against the abstract class takes ten times as long.
            if not isinstance(value, dict) and not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value

    return get


def _searched(path: str, parsed: Any) -> Getter:
    # One interpreter for all documents: making it for each costs as much as a small expression.
    visit = TreeInterpreter().visit

    def get(row: Mapping[str, Any]) -> Any:
        try:
            return visit(parsed, row)
        except JMESPathError as error:
            raise PermanentError(describe_mismatch(path, error)) from None  # its own words quote the document

    return get


def check_paths(paths: Iterable[str], check: Callable[[str], object]) -> None:
    """Check paths of a configuration.

    Args:
        paths: the paths.
        check: raises ValueError for one that is not valid.

    Raises:
        ValueError: a path is not valid; the text says where the language is described.
    """
    for path in paths:
        try:
            check(path)
        except ValueError as error:
            raise ValueError(f"{error}; see https://jmespath.org for expressions") from error
