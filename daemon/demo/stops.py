"""What tells the demo from outside to end: Ctrl-C, SIGTERM, a terminal that is closed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collects these signals inside the `with`, and puts back what was there before.

    Yields:
        the signals that came so far.

    Raises:
        ValueError: not in the main thread, where Python handles signals.
    """
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _NUMBERS}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
