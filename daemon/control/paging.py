"""Pages of lists that are too long for one answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

#: More would block the process while it is made, and the client while it is read.
LIST_BYTES = 768 * 1024


#: What of a request's 64 KiB is left for a list.
REQUEST_BYTES = 48 * 1024


def split(values: Sequence[T], most_bytes: int = REQUEST_BYTES) -> Iterator[list[T]]:
    """Yield JSON values in lists that each fit into one request."""
    while values:
        taken = page(values, most_bytes)
        yield taken
        values = values[len(taken) :]


def page(values: Iterable[T], most_bytes: int | None = None) -> list[T]:
    """Return the first JSON values, as many as fit; at least one, if there is any.

    Args:
        values: JSON values.
        most_bytes: most bytes of their JSON; those of an answer unless given.
    """
    taken: list[T] = []
    left = LIST_BYTES if most_bytes is None else most_bytes
    for value in values:
        left -= len(json.dumps(value)) + 1  # at least as long as in UTF-8
        if taken and left < 0:
            break
        taken.append(value)
    return taken
