"""Whether two JSON texts, or two values of JSON, are the same, however they are written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from pillows.strict_json import run_deeply

# Without rounding: 0.1 and 0.1000000000000000055 are different numbers, and 1e400 is one, too.
_decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode


def read_json(text: bytes) -> Any:
    """Return the value of a JSON text; a number beyond a double keeps its digits, and so do all beside it.

    Raises:
        msgspec.DecodeError: it is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # perhaps for such a number
        return _decode_exactly(text)


def is_same_json(one: bytes | str, other: bytes | str) -> bool:
    """Return whether two JSON texts have the same value.

    The order of keys does not count; 1.0 equals 1, `true` does not.

    A text that is not JSON equals only itself.
    """
    if one == other:
        return True
    try:
        values = run_deeply(lambda: (_decode_exactly(one), _decode_exactly(other)))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return is_same_value(*values)


def is_same_value(one: Any, other: Any) -> bool:
    """Return whether two decoded values are the same; see `is_same_json`."""
    try:
        return run_deeply(lambda: _is_same(one, other), frames=3)
    except RecursionError:
        return False


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(part, other[name]) for name, part in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
