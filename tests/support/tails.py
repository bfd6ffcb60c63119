"""Tails in greenlets: their settings, their start, and their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from checkpoints import Checkpoint, CheckpointStore
from pillows.clock import Clock, SystemClock
from pillows.dead_letters.store import DeadLetters
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailSettings
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import PassThrough
from pillows.transports.base import Transport
from tests.support.list_feed import ListFeed
from tests.support.memory_transport import KEY
from tests.support.waiting import wait_until


class RunningTail:
    """A tail that runs in a greenlet from now on.

    Args:
        settings: what the tail is made of.

    Attributes:
        tail, settings: the tail and what it is made of.
        stop: set it to stop the tail.
        greenlet: where it runs.
    """

    def __init__(self, settings: TailSettings) -> None:
        self.tail = Tail(settings)
        self.settings = settings
        self.stop = Event()
        self.greenlet = gevent.spawn(self.tail.run, self.stop)

    def until(self, condition: Any, seconds: float = 60.0) -> None:
        """Wait until the condition is true. What ended the tail is raised."""
        wait_until(condition, seconds=seconds, worker=self.greenlet)

    def finish(self) -> Checkpoint | None:
        """Stop the tail. Return its checkpoint, if it has saved one."""
        self.stop.set()
        self.greenlet.get(timeout=60)
        return self.settings.store.get(self.settings.key)

    def close_stores(self) -> None:
        """Close its stores, for another tail with stores of its own in the same folder."""
        self.settings.store.close()
        self.settings.dead_letters.close()

    def kill(self) -> None:
        """End the tail wherever it is, as SIGKILL would."""
        self.greenlet.kill()


def plan(
    folder: Path,
    feed: ListFeed,
    *transports: Transport,
    clock: Clock | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> TailSettings:
    """Return the settings of a tail of these parts, with its stores in `folder`."""
    known: dict[str, Any] = {
        "key": KEY,
        "pillow": Pillow(
            name="cases", outputs=("cases",), filter=KeepAll(), transform=PassThrough(("cases",))
        ),
        "make_feed": lambda: feed,
        "make_transports": lambda: list(transports),
        "source_digest": "s",
        "pipeline_digest": "p",
        "clock": clock or SystemClock(),
        "observer": observer or Observer(),
    }
    if "store" not in settings:
        known["store"] = CheckpointStore(folder / "checkpoints")
        known["dead_letters"] = DeadLetters(folder / "dead-letters", clock=clock)
    return TailSettings(**(known | settings))
