"""Sample the process: how late the hub is, how many greenlets there are, and how full the disk is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

import gevent
from gevent.event import Event

from checkpoints.files.blocking import run_blocking
from daemon.metrics.families import Families
from pillows.clock import Clock

#: The timer whose lateness is measured.
TIMER_SECONDS = 1.0
#: How often the free space is read.
DISK_SECONDS = 15.0


class ProcessSampler:
    """Samples the process as long as it is open.

    Args:
        families: where the samples go.
        clock: for the timer.
        state_dir: whose disk is watched.
    """

    def __init__(self, families: Families, clock: Clock, state_dir: Path) -> None:
        self._clock = clock
        self._state_dir = state_dir
        self._delay = families.histogram("pillowd_hub_delay_seconds")
        self._free = families.gauge("pillowd_state_directory_free_bytes")
        self._greenlets: WeakSet[gevent.Greenlet[..., object]] = WeakSet()
        families.gauge("pillowd_greenlets").set_function(self._count_greenlets)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample until the end of the `with` block."""
        stop = Event()
        gevent.Greenlet.add_spawn_callback(self._greenlets.add)
        samplers = [gevent.spawn(self._watch_hub, stop), gevent.spawn(self._watch_disk, stop)]
        try:
            yield
        finally:
            gevent.Greenlet.remove_spawn_callback(self._greenlets.add)
            stop.set()
            gevent.joinall(samplers, timeout=TIMER_SECONDS)
            gevent.killall(samplers)

    def _watch_hub(self, stop: Event) -> None:
        due_at = self._clock.monotonic() + TIMER_SECONDS
        while not self._clock.wait(stop, TIMER_SECONDS):
            now = self._clock.monotonic()
            self._delay.observe(max(0.0, now - due_at))
            due_at = now + TIMER_SECONDS

    def _watch_disk(self, stop: Event) -> None:
        while not stop.is_set():
            with suppress(OSError):  # what needs the disk reports it
                found = run_blocking(os.statvfs, self._state_dir)
                self._free.set(found.f_bavail * found.f_frsize)
            self._clock.wait(stop, DISK_SECONDS)

    def _count_greenlets(self) -> int:
        return sum(not each.dead for each in list(self._greenlets))
