"""Pages of lists that are too long for one message of the control socket."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

#: A message is at most 1 MiB (`checkpoints.rpc.framing`); the rest is for what surrounds the page.
PAGE_BYTES = 768 * 1024


def page(values: Iterable[T]) -> list[T]:
    """Return the first JSON values, as many as one message takes; at least one, if there is any."""
    taken: list[T] = []
    left = PAGE_BYTES
    for value in values:
        left -= len(json.dumps(value)) + 1  # the message is ASCII
        if taken and left < 0:
            break
        taken.append(value)
    return taken
