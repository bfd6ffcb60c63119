"""One declarative step of a transform: a document is reshaped, and rows for child tables taken from it.

    DeclarativeStep(pick=["_id", "name", "address.city"], rename={"address.city": "city"},
                    compute={"visits": "length(visits)"}, types={"born": "date"},
                    rows={"visit": ChildRows(each="visits", fields={"day": "on"}, parent={"case_id": "_id"})})

Within a step this is the order: pick, drop and redact speak of the document's own names; rename, set,
compute and types of the row's; expressions in `compute` and `rows` see the document as it came into
the step, whatever was picked. Everything is compiled once, and a document that others may be reading
is never changed: the row is a copy, and so is every mapping on the way to what changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from pydantic import field_validator

from pillows.errors import PermanentError
from pillows.options import Options
from pillows.stages.conversions import CONVERSIONS, convert
from pillows.stages.document_paths import Getter, check_paths, copy_with, getter, set_path, split

#: Changes a row in place; gets the document too.
RowOp = Callable[[dict[str, Any], Mapping[str, Any]], None]

_MISSING = object()  # as opposed to null


class ChildRows(Options):
    """The rows of an output that come from the elements of an array.

    Attributes:
        each: path or JMESPath of the array in the document; missing or null means no rows.
        fields: column -> path or JMESPath in the element, `@` for an element that is a plain value; the
            whole element by default.
        parent: column -> path or JMESPath in the document.
    """

    each: str
    fields: Mapping[str, str] = {}
    parent: Mapping[str, str] = {}

    @field_validator("each")
    @classmethod
    def _is_path(cls, path: str) -> str:
        check_paths([path], getter)
        return path

    @field_validator("fields", "parent")
    @classmethod
    def _are_paths(cls, paths: Mapping[str, str]) -> Mapping[str, str]:
        check_paths(paths.values(), getter)
        return paths


class DeclarativeStep:
    """A compiled declarative step.

    Args:
        pick: names or dotted paths to keep; all unless given.
        drop: names or dotted paths to leave out. In a list on the path, each element is meant.
        redact: name or dotted path -> the value to put there instead; lists as in `drop`.
        rename: name or dotted path -> new name, all at once. A mapping that becomes empty is removed, and so
            is a field that has the new name already.
        set: name -> constant.
        compute: name -> path or JMESPath over the document.
        types: name or dotted path -> one of `CONVERSIONS`.
        rows: output -> its rows.

    Raises:
        ValueError: a path is not valid, a type is unknown, or two fields are renamed to one name.
    """

    def __init__(
        self,
        *,
        pick: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        redact: Mapping[str, Any] | None = None,
        rename: Mapping[str, str] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002 - as configuration calls it
        compute: Mapping[str, str] | None = None,
        types: Mapping[str, str] | None = None,
        rows: Mapping[str, ChildRows] | None = None,
    ) -> None:
        self._begin = _picked(pick) if pick is not None else dict
        self._ops: list[RowOp] = [
            *map(_dropped, drop),
            *(_redacted(path, value) for path, value in (redact or {}).items()),
            *([_renamed(rename)] if rename else []),
            *([_constants(set)] if set else []),
            *(_computed(name, path) for name, path in (compute or {}).items()),
            *(_typed(path, type) for path, type in (types or {}).items()),
        ]
        self._rows = {output: _children(output, child) for output, child in (rows or {}).items()}

    @property
    def outputs(self) -> Sequence[str]:
        """Return the outputs that get rows from arrays."""
        return tuple(self._rows)

    def apply(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document's own row.

        Raises:
            PermanentError: an expression or a type does not fit it.
        """
        row = self._begin(document)
        for op in self._ops:
            op(row, document)
        return row

    def children(self, document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return output -> the rows from its array.

        Raises:
            PermanentError: the value that should be an array of rows is not an array.
        """
        return {output: make(document) for output, make in self._rows.items()}


def _picked(paths: Sequence[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the function that keeps only the values at these paths."""
    whole = [path for path in paths if len(split(path)) == 1]
    inner: dict[str, list[str]] = {}
    for path in paths:
        name, *rest = split(path)
        if rest and name not in whole:
            inner.setdefault(name, []).append(".".join(rest))
    nested = [(name, _picked(rest)) for name, rest in inner.items()]

    def pick(document: Mapping[str, Any]) -> dict[str, Any]:
        row = {name: document[name] for name in whole if name in document}
        for name, pick_inner in nested:
            value = document.get(name)
            if isinstance(value, dict) and (kept := pick_inner(value)):
                row[name] = kept
            elif isinstance(value, list):
                row[name] = [pick_inner(each) for each in value if isinstance(each, dict)]
        return row

    return pick


def _dropped(path: str) -> RowOp:
    return _at(path, lambda mapping, name: mapping.__delitem__(name))


def _redacted(path: str, value: Any) -> RowOp:
    return _at(path, lambda mapping, name: mapping.__setitem__(name, value))


def _at(path: str, change: Callable[[dict[str, Any], str], None]) -> RowOp:
    first, *rest = split(path)

    def work(row: dict[str, Any], _: Mapping[str, Any]) -> None:
        if first not in row:
            return
        if rest:
            row[first] = copy_with(row[first], rest, change)
        else:
            change(row, first)

    return work


def _renamed(renames: Mapping[str, str]) -> RowOp:
    """Return a step that removes all renamed fields before it adds any, so that names can be swapped."""
    _refuse_clashes(list(renames.values()))
    # What stands within another field that moves is taken out before that.
    deepest_first = sorted(renames.items(), key=lambda each: -len(split(each[0])))
    moves = [(split(old), split(new)) for old, new in deepest_first]

    def work(row: dict[str, Any], _: Mapping[str, Any]) -> None:
        for new, value in [(new, _taken(row, old)) for old, new in moves]:
            if value is _MISSING:
                continue
            if len(new) == 1:
                row[new[0]] = value
            else:
                set_path(row, new, value)

    return work


def _refuse_clashes(names: Sequence[str]) -> None:
    for one, other in combinations(names, 2):
        if split(one) == split(other):
            raise ValueError(f"two fields would be named {one!r}, so one would be lost; rename one")
        if f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
            raise ValueError(f"fields would be named {one!r} and {other!r}, so one would be lost; rename one")


def _taken(row: dict[str, Any], path: Sequence[str]) -> Any:
    """Remove the value at a path from a row that the caller may change, and mappings that become empty."""
    name = path[0]
    if len(path) == 1:
        return row.pop(name, _MISSING)
    inner = row.get(name)
    if not isinstance(inner, dict):
        return _MISSING
    inner = dict(inner)
    value = _taken(inner, path[1:])
    if inner:
        row[name] = inner
    elif value is not _MISSING:
        del row[name]  # leave no empty mapping behind
    return value


def _constants(constants: Mapping[str, Any]) -> RowOp:
    return lambda row, _: row.update(constants)


def _computed(name: str, path: str) -> RowOp:
    get, names = getter(path), split(name)

    def work(row: dict[str, Any], document: Mapping[str, Any]) -> None:
        set_path(row, names, get(document))

    def simple(row: dict[str, Any], document: Mapping[str, Any]) -> None:
        row[name] = get(document)

    return simple if len(names) == 1 else work


def _typed(path: str, type: str) -> RowOp:
    if type not in CONVERSIONS:
        raise ValueError(f"{type!r} is not a type; write one of {', '.join(CONVERSIONS)}")
    if len(split(path)) > 1:
        return _at(path, lambda mapping, name: mapping.__setitem__(name, convert(path, type, mapping[name])))

    def work(row: dict[str, Any], _: Mapping[str, Any]) -> None:
        if path in row:
            row[path] = convert(path, type, row[path])

    return work


def _children(output: str, child: ChildRows) -> Callable[[Mapping[str, Any]], list[dict[str, Any]]]:
    array = getter(child.each)
    fields, parent = _getters(child.fields), _getters(child.parent)
    plain = set(child.fields.values()) == {"@"}  # a list of plain values: `@` is the element itself

    def make(document: Mapping[str, Any]) -> list[dict[str, Any]]:
        elements = array(document)
        if elements is None:
            return []
        if not isinstance(elements, list):
            raise PermanentError(f"The rows of {output!r} need an array at {child.each!r}.")
        if not plain and not all(isinstance(element, Mapping) for element in elements):
            raise PermanentError(f"The rows of {output!r} need objects in their array.")
        shared = {name: get(document) for name, get in parent}
        if not fields:
            return [{**shared, **element} for element in elements]
        return [{**shared, **{name: get(element) for name, get in fields}} for element in elements]

    return make


def _getters(paths: Mapping[str, str]) -> list[tuple[str, Getter]]:
    return [(name, getter(path)) for name, path in paths.items()]
