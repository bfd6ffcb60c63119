"""Send a request again in halves when the server, or we, find it too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pillows.errors import PillowError

T = TypeVar("T")
R = TypeVar("R")


def send_in_halves(
    items: Sequence[T], send: Callable[[Sequence[T]], R], is_too_large: Callable[[PillowError], bool]
) -> list[R]:
    """Return the answers for all items, in order: one, or one for each part that was small enough.

    Args:
        items: what to send; at least one.
        send: sends some of the items and returns the answer.
        is_too_large: whether an error of `send` means that fewer items at a time may succeed.

    Raises:
        PillowError: as `send`; also when a single item is too large.
    """
    try:
        return [send(items)]
    except PillowError as error:
        if len(items) < 2 or not is_too_large(error):
            raise
    middle = len(items) // 2
    return [
        answer
        for half in (items[:middle], items[middle:])
        for answer in send_in_halves(half, send, is_too_large)
    ]
