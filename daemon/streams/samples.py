"""Format a change, or the rows of a document, for `pillowd tap`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pillows.models import Change, DocumentRows, Row

#: Larger documents and rows are not shown: parsing them would hold up every pillow.
MAX_SHOWN_BYTES = 128 * 1024
#: How much of a list and of a text is shown.
_LIST_VALUES = 20
_TEXT_CHARACTERS = 500
_DEPTH = 12

_TYPES = {str: "text", bool: "boolean", int: "number", float: "number", type(None): "null"}


def show_change(change: Change, *, values: bool) -> dict[str, Any]:
    """Return a change as JSON values.

    Args:
        change: as the feed brought it.
        values: whether the document's values are shown; without it, the types of its values.
    """
    return {
        "id": change.id,
        "rev": change.rev,
        "deleted": change.deleted,
        "doc": None if change.raw is None else _show_raw(change.raw, values=values),
    }


def show_rows(document: DocumentRows, *, values: bool) -> dict[str, Any]:
    """Return the rows of a document as JSON values, by output; see `show_change`."""
    if document.size_bytes > MAX_SHOWN_BYTES:
        shown: Any = _too_large(document.size_bytes)
    else:
        shown = {name: _show_output(rows, values=values) for name, rows in document.rows.items()}
    return {"id": document.id, "rev": document.rev, "rows": shown}


def _show_output(rows: Sequence[Row], *, values: bool) -> list[Any]:
    shown = [_show_row(row, values=values) for row in rows[:_LIST_VALUES]]
    return [*shown, *_left_out(len(rows))]


def _show_row(row: Row, *, values: bool) -> Any:
    return _show_raw(row, values=values) if isinstance(row, msgspec.Raw) else _show(row, values=values)


def _show_raw(raw: msgspec.Raw, *, values: bool) -> Any:
    if len(raw) > MAX_SHOWN_BYTES:
        return _too_large(len(raw))
    try:
        return _show(msgspec.json.decode(raw), values=values)
    except (msgspec.MsgspecError, RecursionError):  # it becomes a dead letter, if anything reads it
        return "not readable"


def _show(value: Any, *, values: bool, depth: int = 0) -> Any:
    if depth >= _DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(name): _show(each, values=values, depth=depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        shown = [_show(each, values=values, depth=depth + 1) for each in value[:_LIST_VALUES]]
        return [*shown, *_left_out(len(value))]
    if not values:
        return _TYPES.get(type(value), type(value).__name__)
    if isinstance(value, bool | int | float | type(None)):
        return value
    text = str(value)
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}…"


def _left_out(length: int) -> list[str]:
    return [f"… {length - _LIST_VALUES} more"] if length > _LIST_VALUES else []


def _too_large(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes, too large to show"
