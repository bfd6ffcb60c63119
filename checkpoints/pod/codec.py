"""Keys and lines of a store, in tastypy's format.

A line is KEY TAB VALUE LF. VALUE is JSON; KEY is JSON in which every backslash is doubled, so that
tastypy, which halves them before it parses, reads keys with a tab or a backslash as well. Both are
ASCII, and neither can hold a raw tab or newline, which JSON escapes.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from checkpoints.pod.depth import MAX_DEPTH, TOO_DEEP, decode, is_too_deep

Key: TypeAlias = Any  # str, int, or a tuple of keys: mypy knows no recursive type that dicts accept

_encode = json.JSONEncoder(allow_nan=False, separators=(", ", ": ")).encode
_encode_with_nan = json.JSONEncoder(separators=(", ", ": ")).encode


def check_key(key: object, *, levels: int = MAX_DEPTH) -> None:
    """Refuses what cannot be a key.

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
    """Whether something can be a key."""
    try:
        check_key(key)
    except TypeError:
        return False
    return True


def encode_key(key: Key) -> str:
    """The key as it stands in a line."""
    return _encode(key).replace("\\", "\\\\")


def decode_key(text: str) -> Key:
    """The key that `encode_key` gave.

    Raises:
        ValueError, TypeError: it is none.
    """
    key = as_key(decode(text.replace("\\\\", "\\")))
    check_key(key)
    return key


def as_key(value: Any) -> Key:
    """A key that went through JSON: its arrays are tuples again."""
    return tuple(as_key(part) for part in value) if isinstance(value, list) else value


def encode_value(key: Key, value: Any, *, within: int = 0, stored: bool = False) -> str:
    """The value as JSON.

    Args:
        key: under which it is to be stored.
        value: the whole value, or a part of it.
        within: how deep in the whole value this part is.
        stored: it has come from a store: there may be a NaN in it, from a file of tastypy's.

    Raises:
        TypeError, ValueError: it is not JSON (a set, an object, NaN, a cycle), or nested too deeply; the
            key is named.
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
    """The line of a key and its value as JSON, without the newline."""
    return f"{encode_key(key)}\t{text}".encode()


def value_of(line: bytes) -> Any:
    """The value in a line, as plain dicts and lists."""
    return json.loads(text_of(line))


def text_of(line: bytes) -> str:
    """The value in a line as JSON."""
    return line.partition(b"\t")[2].decode()


def parse_line(line: bytes) -> Key:
    """The key in a line.

    Raises:
        ValueError: it is no line; the message says why.
    """
    text, tab, value = line.partition(b"\t")
    if not tab:
        raise ValueError("no tab between key and value")
    try:
        key = decode_key(text.decode())
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a key: {error}") from None
    try:
        decode(value.decode())
    except ValueError as error:
        raise ValueError(f"the value of {key!r} is not JSON: {error}") from None
    return key
