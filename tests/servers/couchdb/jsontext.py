"""JSON as CouchDB reads and writes it: strict UTF-8, integers of any length, floats in jiffy's form.

Python's C scanner and encoder do the work. A float that Python would write otherwise is read as an
`OddFloat`, which the C encoder refuses. Such values, and lists nested beyond Python's limit, go through the
slow functions at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any, NoReturn

from tests.servers.couchdb.errors import invalid_json

LEAST_NORMAL = 2.2250738585072014e-308
UPPER_ESCAPE = re.compile(r"\\(?:u00[0-9a-f]{2}|.)")
TOKEN = re.compile(
    r'[ \t\n\r]*([\[\]{},:]|"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)"
)


class OddFloat:
    """A float that Python writes otherwise than CouchDB does."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    @property
    def text(self) -> str:
        """The shortest digits, with an exponent below 1e-6 and from 1e21 on."""
        sign = "-" if self.value < 0 else ""
        mantissa, _, exponent = f"{abs(self.value)!r}".partition("e")
        if not exponent:
            return sign + mantissa
        digits = mantissa.replace(".", "").removesuffix("0") or "0"
        point = int(exponent) + 1
        if point > 21 or point < -5:
            fraction = f".{digits[1:]}" if len(digits) > 1 else ""
            return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        return f"{sign}{digits.ljust(point, '0')}.0"


def loads(data: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        Refusal: it is not JSON, or not UTF-8.
    """
    try:
        text = data.decode()
        try:
            value = _DECODER.decode(text)
        except RecursionError:
            value = _parse_deep(text)
    except ValueError:
        raise invalid_json() from None
    if b"\\u" in data and _has_surrogate(text):
        raise invalid_json()
    return value


def dumps(value: Any) -> bytes:
    """Return a value's JSON text."""
    try:
        text = _ENCODER.encode(value)
    except (RecursionError, TypeError):
        text = "".join(_write_deep(value))
    if "\\u00" in text:
        text = UPPER_ESCAPE.sub(_upper, text)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a pair, which only an id in a path can have
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def text_of(value: str) -> bytes:
    """Return the JSON text of a text, most of which need little."""
    if value.isascii() and value.isprintable():
        return encode_basestring(value).encode()
    return dumps(value)


def _upper(found: re.Match[str]) -> str:
    escape = found[0]
    return escape[:2] + escape[2:].upper() if escape[1] == "u" else escape


def _has_surrogate(text: str) -> bool:
    """Return whether an escape is half a pair. A pair of escapes is two halves that belong together."""
    halves = re.sub(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[^u])", "", text)
    return re.search(r"\\u[dD][89a-fA-F]", halves) is not None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):  # of a name that comes twice the last one counts, in its place
        members = {}
        for name, value in pairs:
            members.pop(name, None)
            members[name] = value
    return members


def _number(text: str) -> float | OddFloat:
    value = float(text)
    size = abs(value)
    if size < LEAST_NORMAL:
        return 0.0
    if 1e-4 <= size < 1e16:
        return value
    if size == float("inf"):
        raise ValueError(text)
    return OddFloat(value)


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _default(value: object) -> NoReturn:
    raise TypeError(value)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_refuse)
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, default=_default
)


def _parse_deep(text: str) -> Any:
    """Parse without recursion: a stack of unfinished lists, objects as lists of pairs."""
    tokens = list(_tokens(text))
    stack: list[tuple[str, list[Any]]] = []
    done: list[Any] = []
    wanted = "value"
    for token in tokens:
        if wanted == "end":
            raise ValueError(token)
        if token in "]}" and stack and wanted in ("first", "more"):
            opened, items = stack.pop()
            if (opened, token) not in (("[", "]"), ("{", "}")):
                raise ValueError(token)
            value = items if token == "]" else _object(list(zip(items[::2], items[1::2], strict=True)))
        elif token == "," and wanted == "more":
            wanted = "name" if stack[-1][0] == "{" else "value"
            continue
        elif token == ":" and wanted == "colon":
            wanted = "value"
            continue
        elif wanted == "name" or (wanted == "first" and stack[-1][0] == "{"):
            if token[0] != '"':
                raise ValueError(token)
            stack[-1][1].append(json.loads(token))
            wanted = "colon"
            continue
        elif token in "[{" and wanted in ("value", "first"):
            stack.append((token, []))
            wanted = "first"
            continue
        elif token not in "]},:" and wanted in ("value", "first"):
            value = _DECODER.decode(token)
        else:
            raise ValueError(token)
        (stack[-1][1] if stack else done).append(value)
        wanted = "more" if stack else "end"
    if wanted != "end":
        raise ValueError(text[:20])
    return done[0]


def _tokens(text: str) -> Iterator[str]:
    end, length = 0, len(text.rstrip(" \t\n\r"))
    while end < length:
        found = TOKEN.match(text, end)
        if not found:
            raise ValueError(text[end : end + 20])
        yield found[1]
        end = found.end()


def _write_deep(value: Any) -> Iterator[str]:
    """Write without recursion: a stack of iterators, each with its closing bracket."""
    stack: list[tuple[Iterator[tuple[str, Any]], str]] = [(iter([("", value)]), "")]
    while stack:
        for before, item in stack[-1][0]:
            yield before
            if isinstance(item, dict):
                yield "{"
                stack.append((_members(item), "}"))
                break
            if isinstance(item, list):
                yield "["
                stack.append((_items(item), "]"))
                break
            yield item.text if isinstance(item, OddFloat) else _ENCODER.encode(item)
        else:
            yield stack.pop()[1]


def _members(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for number, (name, item) in enumerate(value.items()):
        yield f"{',' if number else ''}{encode_basestring(name)}:", item


def _items(value: list[Any]) -> Iterator[tuple[str, Any]]:
    for number, item in enumerate(value):
        yield "," if number else "", item
