"""Periodic jobs of a tail: one greenlet waits, and starts each job when it is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent
from gevent.event import Event

from pillows.clock import Clock
from pillows.user_code import confine


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is repeated.

    Attributes:
        run: does the job once; while it waits, it delays only itself.
        interval_seconds: between two starts.
        is_first_due: whether it is due when the tail starts.
    """

    run: Callable[[], object]
    interval_seconds: float
    is_first_due: bool = False


class Housekeeping:
    """Repeats jobs until a stop.

    Args:
        clock: measures the intervals.
        halt: ends the repetition; a job that runs then is finished.
        on_error: called with each error of a job.
    """

    def __init__(self, clock: Clock, halt: Event, on_error: Callable[[Exception], None]) -> None:
        self._clock = clock
        self._halt = halt
        self._on_error = on_error
        self._running: dict[Job, gevent.Greenlet[..., None]] = {}
        self._timer: gevent.Greenlet[..., None] | None = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Repeat these jobs, each in a greenlet of its own while it runs."""
        self._timer = gevent.spawn(self._run, jobs)

    def start_soon(self, job: Job, seconds: float) -> None:
        """Start a job after this time as well, unless it runs or waits already."""
        if job not in self._running or self._running[job].dead:
            self._running[job] = gevent.spawn(self._attempt, job, seconds)

    def kill(self, *jobs: Job) -> None:
        """Kill these jobs and start no more of any; all jobs unless given."""
        if self._timer is not None:
            self._timer.kill()
        gevent.killall([each for job, each in self._running.items() if not jobs or job in jobs])

    def _run(self, jobs: Sequence[Job]) -> None:
        now = self._clock.monotonic()
        due = {job: now + (0.0 if job.is_first_due else job.interval_seconds) for job in jobs}
        while not self._clock.wait(self._halt, max(0.0, min(due.values()) - self._clock.monotonic())):
            now = self._clock.monotonic()
            for job in [each for each, at in due.items() if at <= now]:
                due[job] = now + job.interval_seconds
                if job not in self._running or self._running[job].dead:
                    self._running[job] = gevent.spawn(self._attempt, job)

    def _attempt(self, job: Job, delay_seconds: float = 0.0) -> None:
        if delay_seconds and self._clock.wait(self._halt, delay_seconds):
            return  # the end of the run saves
        try:
            job.run()
        except BaseException as error:  # noqa: BLE001 - the run that owns the jobs raises it
            self._on_error(confine(error))
