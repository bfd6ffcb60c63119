"""Waiting, in real time, for a condition that another greenlet, thread or process makes true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import gevent

#: Long enough for a busy machine; a condition that holds ends the wait at once.
LIMIT_SECONDS = 60.0
PAUSE_SECONDS = 0.002
#: A condition that asks a server is not asked more often than this.
LONGEST_PAUSE_SECONDS = 0.05


class Worker(Protocol):
    """A greenlet, as far as a wait needs it."""

    @property
    def dead(self) -> bool: ...

    def get(self) -> object: ...


def let_others_run(turns: int = 100) -> None:
    """Let the hub turn a hundred times: every greenlet that does not wait comes to where it waits."""
    for _ in range(turns):
        gevent.sleep(0)


def wait_until(
    condition: Callable[[], object],
    *,
    seconds: float = LIMIT_SECONDS,
    worker: Worker | None = None,
    explain: Callable[[], object] = str,
) -> None:
    """Wait until the condition is true.

    Args:
        condition: called at first every 2 ms, later every 50 ms.
        seconds: how long it may take at most.
        worker: a greenlet whose end ends the wait, with the error that ended it.
        explain: called for more facts when the time is up.

    Raises:
        AssertionError: the time is up, or the worker has ended without an error.
    """
    give_up_at = time.monotonic() + seconds
    retry_delay_seconds = PAUSE_SECONDS
    while not condition():
        if worker is not None and worker.dead:
            worker.get()
            if condition():  # by what the worker did last
                return
            raise AssertionError(f"the worker has ended, and this is not true: {condition}")
        if time.monotonic() >= give_up_at:
            raise AssertionError(f"not true within {seconds:g} s: {condition} {explain()}")
        time.sleep(retry_delay_seconds)  # gevent's, in the tests: other greenlets run meanwhile
        retry_delay_seconds = min(1.2 * retry_delay_seconds, LONGEST_PAUSE_SECONDS)
