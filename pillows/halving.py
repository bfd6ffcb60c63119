"""Send a request again in halves when it was refused as a whole, for its size or for some of its items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Sliceable(Protocol):
    """A sequence, or a request of several items."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, part: slice, /) -> Any:
        """Return the same with some of the items."""


T = TypeVar("T", bound=Sliceable)
R = TypeVar("R")


def send_in_halves(items: T, send: Callable[[T], R], is_refused: Callable[[Exception], bool]) -> list[R]:
    """Return the answers for all items, in order: one, or one for each part that was taken.

    Args:
        items: what to send; at least one.
        send: sends some of the items and returns the answer. Where the refusal of a single item is an
            answer, it returns one instead of raising.
        is_refused: whether an error of `send` means that some of the items may be taken without the others.

    Raises:
        Exception: as `send`; also when a single item is refused.
    """
    try:
        return [send(items)]
    except Exception as error:
        if len(items) < 2 or not is_refused(error):
            raise
    middle = len(items) // 2
    return [
        answer
        for half in (items[:middle], items[middle:])
        for answer in send_in_halves(half, send, is_refused)
    ]
