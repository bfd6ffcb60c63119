"""Jobs that run while a tail's loop does: each starts when it is due, and nothing wakes while none is."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import gevent
from gevent.event import Event
from msgspec import Struct

from pillows.clock import Clock
from pillows.user_code import confine


class Job(Struct, frozen=True):
    """A job that is done now and then.

    Attributes:
        run: does the job once, and returns the seconds until it is due again; None if nothing is left to do.
            While it waits, it delays only itself.
    """

    run: Callable[[], float | None]


class Housekeeping:
    """Runs jobs until a stop, each in a greenlet of its own and never twice at once.

    Args:
        clock: measures the waits.
        halt: ends the waits; a job that runs then is finished.
        on_error: called with each error of a job.
    """

    def __init__(self, clock: Clock, halt: Event, on_error: Callable[[Exception], None]) -> None:
        self._clock = clock
        self._halt = halt
        self._on_error = on_error
        self._due: dict[Job, float] = {}  # monotonic seconds of the next start
        self._greenlets: dict[Job, gevent.Greenlet[..., None]] = {}
        self._running: set[Job] = set()
        self._killed: set[Job] = set()

    def start_soon(self, job: Job, seconds: float) -> None:
        """Start a job within this time. If it runs now, it starts again when it has ended."""
        due_at = self._clock.monotonic() + seconds
        if due_at >= self._due.get(job, inf) or job in self._killed:
            return
        self._due[job] = due_at
        if job not in self._running:
            if job in self._greenlets:  # it waits for too long
                self._greenlets[job].kill(block=False)
            self._greenlets[job] = gevent.spawn(self._repeat, job)

    def kill(self, *jobs: Job) -> None:
        """Kill these jobs and start none of them again; all that were ever started unless given."""
        ended = jobs or tuple(self._greenlets)
        self._killed.update(ended)
        gevent.killall([self._greenlets[job] for job in ended if job in self._greenlets])

    def _repeat(self, job: Job) -> None:
        """Do a job as often as it is due."""
        while job in self._due:
            seconds = self._due[job] - self._clock.monotonic()
            if seconds > 0 and self._clock.wait(self._halt, seconds):
                return  # the end of the run saves
            del self._due[job]
            self._running.add(job)
            try:
                again_seconds = job.run()
            except BaseException as error:  # noqa: BLE001 - the run that owns the jobs raises it
                error = confine(error)
                self._due.pop(job, None)  # or a later `start_soon` would take it for one that waits
                del self._greenlets[job]
                self._on_error(error)
                return
            finally:
                self._running.discard(job)
            if again_seconds is not None:
                again_at = self._clock.monotonic() + again_seconds
                self._due[job] = min(again_at, self._due.get(job, inf))
        del self._greenlets[job]
