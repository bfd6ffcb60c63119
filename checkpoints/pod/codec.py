"""Keys and lines of a store, in tastypy's format.

A line is KEY TAB VALUE LF. VALUE is JSON; KEY is JSON in which every backslash is doubled, so that
tastypy, which halves them before it parses, reads keys with a tab or a backslash as well. Both are
ASCII, and neither can hold a raw tab or newline, which JSON escapes.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Key: TypeAlias = Any  # str, int, or a tuple of keys: mypy knows no recursive type that dicts accept

#: Deepest nesting of dicts and lists. A walk through a value takes a few of Python's 1,000 stack frames for
#: each level. Without a limit, one caller could store a value that another caller, with fewer frames left,
#: cannot read.
MAX_DEPTH = 100
TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"

_NESTING = (dict, list, tuple)

_encode = json.JSONEncoder(allow_nan=False, separators=(", ", ": ")).encode
_encode_with_nan = json.JSONEncoder(separators=(", ", ": ")).encode


def check_key(key: object, *, levels: int = MAX_DEPTH) -> None:
    """Refuse a value that cannot be a key.

    Raises:
        TypeError: it is neither `str`, `int` nor a tuple of those, or nested more than `levels` deep.
    """
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return
    if not isinstance(key, tuple):
        raise TypeError(f"a key is a str, an int or a tuple of them, not {key!r}")
    if not levels:
        raise TypeError(f"this cannot be a key: {TOO_DEEP}")
    for part in key:
        check_key(part, levels=levels - 1)


def is_key(key: object) -> bool:
    """Return whether a value can be a key."""
    try:
        check_key(key)
    except TypeError:
        return False
    return True


def encode_key(key: Key) -> str:
    """Return a key as it is written in a line."""
    return _encode(key).replace("\\", "\\\\")


def decode_key(text: str) -> Key:
    """Return the key in a text that `encode_key` returned.

    Raises:
        ValueError, TypeError: the text is not a key.
    """
    key = as_key(decode_json(text.replace("\\\\", "\\")))
    check_key(key)
    return key


def as_key(value: Any) -> Key:
    """Return a key that went through JSON, with tuples for its arrays."""
    return tuple(as_key(part) for part in value) if isinstance(value, list) else value


def encode_value(key: Key, value: Any, *, within: int = 0, stored: bool = False) -> str:
    """Return a value as JSON.

    Args:
        key: the value's key.
        value: the whole value, or a part of it.
        within: the depth of this part in the whole value.
        stored: the value comes from a store, so it may hold a NaN, from a file that tastypy wrote.

    Raises:
        TypeError, ValueError: the value is not JSON (a set, an object, NaN, a cycle), or nested too deeply;
            the message names the key.
    """
    try:
        text = _encode_with_nan(value) if stored else _encode(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the value of {key!r} cannot be stored: {error}") from None
    except RecursionError:
        raise ValueError(f"the value of {key!r} cannot be stored: {TOO_DEEP}") from None
    if is_too_deep(text, value, within=within):
        raise ValueError(f"the value of {key!r} cannot be stored: {TOO_DEEP}")
    return text


def line_of(key: Key, text: str) -> bytes:
    """Return the line of a key and its value as JSON, without the newline."""
    return f"{encode_key(key)}\t{text}".encode()


def value_of(line: bytes) -> Any:
    """Return the value in a line, as plain dicts and lists."""
    return json.loads(text_of(line))


def text_of(line: bytes) -> str:
    """Return a line's value as JSON text, not decoded."""
    return line.partition(b"\t")[2].decode()


def parse_line(line: bytes) -> Key:
    """Return the key in a line.

    Raises:
        ValueError: it is not a valid line; the message says why.
    """
    text, tab, value = line.partition(b"\t")
    if not tab:
        raise ValueError("no tab between key and value")
    try:
        key = decode_key(text.decode())
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a key: {error}") from None
    try:
        decode_json(value.decode())
    except ValueError as error:
        raise ValueError(f"the value of {key!r} is not JSON: {error}") from None
    return key


def is_too_deep(text: str, value: Any, *, within: int = 0) -> bool:
    """Return whether a value, given with its JSON, is nested too deeply for a place at depth `within`."""
    left = MAX_DEPTH - within
    return _brackets(text) > left and _is_deeper(value, left)


def decode_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        if _brackets(text) <= MAX_DEPTH:
            raise  # it is the caller who is too deep
        raise ValueError(TOO_DEEP) from None
    if _brackets(text) > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(TOO_DEEP)
    return value


def _brackets(text: str) -> int:
    """Return an upper bound of a text's depth. Most texts have few brackets, and counting them is fast."""
    return text.count("[") + text.count("{")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value] if isinstance(value, _NESTING) else []
    for _ in range(levels):
        if not level:
            return False
        level = [part for each in level for part in _parts(each) if isinstance(part, _NESTING)]
    return bool(level)


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
