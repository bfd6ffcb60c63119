"""Run blocking calls (a local database, fsync) in their own thread, one at a time.

gevent runs every greenlet in one thread, so a call that waits for a disk would stop all pillows. The hub's
thread pool has ten threads for all: as many targets that wait for a lock would stop the others, and DNS.
The caller whose turn it is owns what the calls work on (a connection, a file). The turn ends when the
call in the thread has ended, not when the greenlet that waits for it is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import gevent
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from checkpoints.files.blocking import call_safely

#: Seconds after which a thread ends that has nothing to do.
_IDLE_SECONDS = 10

P = ParamSpec("P")
T = TypeVar("T")


class SerialWorker:
    """Runs one call after the other.

    Unlike `checkpoints.files.blocking.run_blocking`, a killed greenlet does not wait for its call: a
    target's disk may hang, and the call's outcome is not needed any more.

    Args:
        interrupt: called when the greenlet that waits for a call is killed (or its timeout fires), to
            make the call in the thread end soon.

    Attributes:
        is_cancelled: whether the caller of the running call has given up.
    """

    def __init__(self, interrupt: Callable[[], None] = lambda: None) -> None:
        self._turn = BoundedSemaphore(1)
        self._interrupt = interrupt
        self._thread: Any = None
        self.is_cancelled = False

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread when its turn comes; return its result or raise its error."""
        self._turn.acquire()
        self.is_cancelled = False
        try:
            call = partial(work, *args, **kwargs)
            job: Any = self._get_thread().spawn(call_safely, call)
        except BaseException:
            self._turn.release()
            raise
        job.rawlink(lambda _: self._turn.release())
        try:
            result, error = job.get()
        except BaseException:
            self.is_cancelled = True
            self._interrupt()
            raise
        if error is not None:
            raise error
        return cast("T", result)

    def _get_thread(self) -> Any:
        """Return the thread, which belongs to the hub that it reports to."""
        hub = gevent.get_hub()
        if self._thread is None or self._thread.hub is not hub:
            self._thread = ThreadPool(1, hub, idle_task_timeout=_IDLE_SECONDS)
        return self._thread
