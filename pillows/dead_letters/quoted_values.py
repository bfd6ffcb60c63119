"""Remove the values of a document from a target's error message. Pure.

Each transport leaves out what its server is known to quote. Servers reword their messages, plugins and
triggers write their own, and a receiver may answer anything: this is the rule for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pillows.models import Row
from pillows.strict_json import run_deeply

HIDDEN = "..."

#: Most characters of a message that are searched; a dead letter keeps fewer.
_MAX_TEXT = 1000
#: A piece of a value that is as long is recognized within other words; a shorter value only by itself.
_PIECE = 8
_SHORTEST = 3
#: Characters of values that are looked at: of each the beginning, which is what servers quote.
_MAX_VALUE = 2**14
_MAX_VALUES = 2**19

_BYTES = re.compile(r"\[-?\d+(?:, ?-?\d+){2,}\]?")  # Elasticsearch shows a text that is too long as bytes
_WORD = re.compile(r"[\w.+-]+")


def hide_values(text: str, rows: Iterable[Row]) -> str:
    """Return a text without values of the rows, or pieces of them. Names of fields stay.

    Args:
        text: the target's error message.
        rows: all rows of the document.
    """
    text = _BYTES.sub(HIDDEN, text[:_MAX_TEXT])
    values = list(_take(_list_values(rows)))
    hidden = _find_pieces(text, "\0".join(values)) | _find_words(text, {v for v in values if len(v) < _PIECE})
    if not hidden:
        return text
    shown = "".join("\0" if at in hidden else each for at, each in enumerate(text))
    return re.sub("\0+", HIDDEN, shown)


def _find_pieces(text: str, values: str) -> set[int]:
    """Return the places of characters that belong to a piece of a value."""
    return {
        at
        for start in range(len(text) - _PIECE + 1)
        if text[start : start + _PIECE] in values
        for at in range(start, start + _PIECE)
    }


def _find_words(text: str, values: set[str]) -> set[int]:
    """Return the places of words that are short values."""
    found = (each for each in _WORD.finditer(text) if each[0].strip(".") in values)
    return {at for each in found for at in range(*each.span())}


def _take(values: Iterator[str]) -> Iterator[str]:
    left = _MAX_VALUES
    for value in values:
        if left <= 0:
            return
        if len(value) >= _SHORTEST:
            piece = value[: min(left, _MAX_VALUE)]
            left -= len(piece)
            yield piece


def _list_values(rows: Iterable[Row]) -> Iterator[str]:
    """Yield all scalar values of rows as texts, in the forms in which servers write them."""
    for row in rows:
        decoded = _decode(row)
        own = decoded.items() if isinstance(decoded, Mapping) else ()
        waiting: list[Any] = [value for name, value in own if name not in ("_id", "_rev")]
        while waiting:
            value = waiting.pop()
            if isinstance(value, Mapping):
                waiting.extend(value.values())
            elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
                waiting.extend(value)
            elif isinstance(value, str):
                yield value
            elif not isinstance(value, bool | bytes | None):
                yield from _to_texts(value)


def _to_texts(number: Any) -> Iterator[str]:
    if isinstance(number, int | float):
        yield from {repr(number), f"{number:.0f}", f"{number:g}", f"{number:E}", f"{number:.1f}"}
    else:
        yield str(number)


def _decode(row: Row) -> Any:
    if not isinstance(row, msgspec.Raw):
        return row
    try:
        return run_deeply(lambda: msgspec.json.decode(row))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # no server has read it either
