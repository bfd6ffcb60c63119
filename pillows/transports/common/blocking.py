"""Runs calls that block (a local database, fsync) in the hub's thread pool, one at a time.

gevent runs every greenlet in one thread, so a call that waits for a disk would stop all pillows.
What a call works on (a connection, a file) belongs to whoever has the turn, and the turn passes on
when the call in the thread has ended, not when the greenlet that waits for it was killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import gevent
from gevent.lock import BoundedSemaphore

_Result = TypeVar("_Result")


class Turns:
    """Hands out turns.

    Args:
        cancel: called when the greenlet that waits for a call is killed (or its timeout fires), to
            make the call in the thread end soon.
    """

    def __init__(self, cancel: Callable[[], None] = lambda: None) -> None:
        self._turn = BoundedSemaphore(1)
        self._cancel = cancel

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Runs `work` in a thread when its turn comes; returns or raises what it does."""
        self._turn.acquire()
        try:
            job: Any = gevent.get_hub().threadpool.spawn(_outcome, work)
        except BaseException:
            self._turn.release()
            raise
        job.rawlink(lambda _: self._turn.release())
        try:
            result, error = job.get()
        except BaseException:
            self._cancel()
            raise
        if error is not None:
            raise error
        return cast("_Result", result)


def _outcome(work: Callable[[], _Result]) -> tuple[_Result | None, Exception | None]:
    # Handed over as a value: gevent's pool prints the traceback of whatever a worker raises.
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001  # raised again by the greenlet that waits
        return None, error
