"""Parts of what would be too much for one message of the control socket."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

#: A message is 1 MiB at most (`checkpoints.rpc.framing`); some of it is not of the page.
PAGE_BYTES = 768 * 1024


def page(values: Iterable[T]) -> list[T]:
    """The first of some JSON values, as many as one message takes; one at least, if there is any."""
    taken: list[T] = []
    left = PAGE_BYTES
    for value in values:
        left -= len(json.dumps(value)) + 1  # as the wire has it: in ASCII
        if taken and left < 0:
            break
        taken.append(value)
    return taken
