"""Reader and pipeline alone: a recorded body of `_changes` into a transport that discards.

Usage: python -m bench.alone FILE [PROFILE]
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import cProfile  # noqa: E402 - everything is imported patched, as in the daemon
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from checkpoints import CheckpointStore, TailKey  # noqa: E402
from pillows import registry  # noqa: E402
from pillows.clock import SystemClock  # noqa: E402
from pillows.deadletters import DeadLetters  # noqa: E402
from pillows.feed_file import FileFeed  # noqa: E402
from pillows.filters import KeepAll  # noqa: E402
from pillows.observer import Observer  # noqa: E402
from pillows.pillow import Pillow  # noqa: E402
from pillows.plan import Plan  # noqa: E402
from pillows.state import State  # noqa: E402
from pillows.tail import Tail  # noqa: E402
from pillows.transforms import PassThrough  # noqa: E402


def main(recorded: str) -> None:
    """Carries every change of the recording once."""
    key = TailKey("bench", "file/bench")
    null = registry.transport("null")
    with tempfile.TemporaryDirectory() as folder, CheckpointStore(Path(folder) / "checkpoints") as store:
        letters = DeadLetters(Path(folder) / "dead-letters")
        tail = Tail(
            Plan(
                key=key,
                pillow=Pillow(
                    name="bench", outputs=("bench",), filter=KeepAll(), transform=PassThrough(("bench",))
                ),
                make_feed=lambda: FileFeed(Path(recorded)),
                make_transports=lambda: [null("null", key, null.Connection(), {"bench": null.Output()})],
                source_digest="",
                pipeline_digest="",
                store=store,
                letters=letters,
                clock=SystemClock(),
                observer=Observer(),
            )
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
        letters.close()
    print(f"{seconds / changes * 1e6:.1f} microseconds of CPU a change, {changes} changes", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        cProfile.run("main(sys.argv[1])", sys.argv[2])
    else:
        main(sys.argv[1])
