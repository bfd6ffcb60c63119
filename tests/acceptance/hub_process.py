"""Runs one pillow as the daemon does, and measures every turn of the hub: `python -m ... CONFIG SECONDS`.

A turn is what runs between two switches of greenlets. Two things hold up everybody else: computing
for long, and sleeping in a system call instead of in the hub. Computing is measured by the thread's
own CPU clock, so other processes do not count; where a turn spent it is sampled every few
milliseconds of CPU time. Sleeping is seen from outside (`test_hub`), which sends SIGUSR1 then: the
stack that finds is the one that slept.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import collections
import gc
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import gevent
from gevent.event import Event

from checkpoints import CheckpointStore
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config.load import load
from pillows.clock import SystemClock
from pillows.dead_letters.store import DeadLetters
from pillows.feed.shared.pool import FeedPool
from pillows.observer import Observer
from pillows.runtime.status import State
from pillows.runtime.tail import Tail
from tests.support.hub_meter import HubMeter

#: Turns that are told of.
LONG_SECONDS = 0.01
SAMPLE_SECONDS = 0.004


class Turns:
    """Measures turns, and notes where the long ones and those that sleep were seen.

    Attributes:
        meter: counts turns, in the thread's CPU seconds.
        longest: the longest ones: CPU seconds, and where they were seen.
        slept: where the thread was seen to sleep outside the hub.
    """

    def __init__(self) -> None:
        self.meter = HubMeter(time.thread_time, self._note, with_hub=True)
        self.longest: list[tuple[float, list[str]]] = []
        self.slept: collections.Counter[str] = collections.Counter()
        self._samples: list[str] = []

    @contextmanager
    def measure(self) -> Iterator[None]:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, self._asleep)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
        with self.meter.measure():
            yield
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _note(self, seconds: float) -> None:
        if seconds > LONG_SECONDS:
            self.longest.append((seconds, self._samples))
            self.longest = sorted(self.longest, key=lambda turn: -turn[0])[:5]
        if self._samples:
            self._samples = []

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        self._samples.append(_place(frame))

    def _asleep(self, _number: int, frame: FrameType | None) -> None:
        place = _place(frame)
        if "gevent/hub.py" not in place.split(" < ")[0]:
            self.slept[place] += 1


def _place(frame: FrameType | None) -> str:
    """The innermost functions, the one that ran first. Without source lines: those are read from disk."""
    places: list[str] = []
    while frame is not None and len(places) < 6:
        file = "/".join(frame.f_code.co_filename.rsplit("/", 2)[-2:])
        places.append(f"{file}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(places)


def main(config_path: str, documents: int) -> None:
    """Runs until so many changes are through and the pillow is live, then tells what was measured."""
    config = load(Path(config_path))
    folder = config.daemon.state_dir
    turns = Turns()
    with CheckpointStore(folder / "checkpoints") as store:
        letters = DeadLetters(folder / "dead-letters")
        clock, observer = SystemClock(), Observer()
        feeds = FeedPool(clock=clock, observer=observer)
        services = Services(store=store, dead_letters=letters, clock=clock, observer=observer, feeds=feeds)
        made = build_tails(config, services)
        ((_, factory),) = made.items()
        tail, stop = factory(), Event()
        assert isinstance(tail, Tail)
        gc.collect()
        gc.freeze()  # as after a start: what was imported is not walked through again
        with turns.measure():
            print("running", flush=True)
            running = gevent.spawn(tail.run, stop)
            while not running.dead and not (tail.state is State.LIVE and tail.status().changes >= documents):
                gevent.sleep(0.05)
            stop.set()
            running.join()
        running.get()
        letters.close()
    told = {
        "turns": turns.meter.count,
        "most": turns.meter.longest_seconds,
        "longest": turns.longest,
        "slept": turns.slept.most_common(5),
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
