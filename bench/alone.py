"""Reader and pipeline alone: a recorded body of `_changes` into a transport that discards.

Usage: python -m bench.alone FILE [PROFILE]
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import cProfile
import sys
import tempfile
import time
from pathlib import Path

import gevent
from gevent.event import Event

from checkpoints import CheckpointStore, ConfigDigest, TailKey
from pillows import registry
from pillows.clock import SystemClock
from pillows.dead_letters.store import DeadLetters
from pillows.feed.recorded import RecordedFeed
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.runtime.status import State
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import PassThrough


def main(recorded: str) -> None:
    """Carries every change of the recording once."""
    key = TailKey("bench", "file/bench")
    null = registry.transport("null")
    with tempfile.TemporaryDirectory() as folder, CheckpointStore(Path(folder) / "checkpoints") as store:
        dead_letters = DeadLetters(Path(folder) / "dead-letters")
        tail = Tail(
            TailSettings(
                key=key,
                pillow=Pillow(
                    name="bench", outputs=("bench",), filter=KeepAll(), transform=PassThrough(("bench",))
                ),
                digest=ConfigDigest(),
            ),
            TailServices(
                make_feed=lambda: RecordedFeed(Path(recorded)),
                make_transports=lambda: [null("null", key, null.Connection(), {"bench": null.Output()})],
                store=store,
                dead_letters=dead_letters,
                clock=SystemClock(),
                observer=Observer(),
            ),
        )
        stop = Event()
        began = time.thread_time()
        running = gevent.spawn(tail.run, stop)
        while tail.state is not State.LIVE and not running.dead:
            running.join(0.05)
        seconds = time.thread_time() - began
        changes = tail.status().changes
        stop.set()
        running.get()
        dead_letters.close()
    print(f"{seconds / changes * 1e6:.1f} microseconds of CPU a change, {changes} changes", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        cProfile.run("main(sys.argv[1])", sys.argv[2])
    else:
        main(sys.argv[1])
