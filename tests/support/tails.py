"""Tails in greenlets: their settings, their start, and their end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from msgspec.structs import fields, replace

from checkpoints import Checkpoint, CheckpointStore, ConfigDigest, TailKey
from pillows.clock import Clock, SystemClock
from pillows.dead_letters.dead_letter import ErrorOptions
from pillows.dead_letters.store import DeadLetters
from pillows.delivery.batcher import BatchOptions
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import PassThrough
from pillows.transports.base import Transport
from tests.support.list_feed import ListFeed
from tests.support.memory_transport import KEY
from tests.support.waiting import wait_until


class RunningTail:
    """A tail that runs in a greenlet from now on.

    Args:
        parts: what the tail is made of.

    Attributes:
        tail, settings: the tail and its settings.
        stop: set it to stop the tail.
        greenlet: where it runs.
    """

    def __init__(self, parts: Parts) -> None:
        self.tail = Tail(parts.settings, parts.services)
        self.settings = parts
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
        """Kill the tail at any point, as SIGKILL would."""
        self.greenlet.kill()


@dataclass(frozen=True)
class Parts:
    """The parts of a tail.

    Attributes:
        settings: the values that it runs with.
        services: what it uses.
    """

    settings: TailSettings
    services: TailServices

    @property
    def key(self) -> TailKey:
        return self.settings.key

    @property
    def pillow(self) -> Pillow:
        return self.settings.pillow

    @property
    def store(self) -> CheckpointStore:
        assert isinstance(self.services.store, CheckpointStore)
        return self.services.store

    @property
    def dead_letters(self) -> DeadLetters:
        return self.services.dead_letters

    def replaced(self, **changes: Any) -> Parts:
        """Return the same parts, with other settings or services."""
        of_services = {name: changes.pop(name) for name in list(changes) if name in _SERVICES}
        return Parts(replace(self.settings, **changes), replace(self.services, **of_services))


_SERVICES = {each.name for each in fields(TailServices)}


def plan(
    folder: Path,
    feed: ListFeed,
    *transports: Transport,
    clock: Clock | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> Parts:
    """Return the parts of a tail, with its stores in `folder`.

    Args:
        folder: where the stores are, unless they are given.
        feed: the changes.
        transports: the targets.
        clock: for every duration and wait.
        observer: receives everything that happens.
        settings: fields of `TailSettings` and `TailServices`, and of the options in them.
    """
    known: dict[str, Any] = {
        "key": KEY,
        "pillow": Pillow(
            name="cases", outputs=("cases",), filter=KeepAll(), transform=PassThrough(("cases",))
        ),
        "digest": ConfigDigest(source="s", pipeline="p"),
        "make_feed": lambda: feed,
        "make_transports": lambda: list(transports),
        "clock": clock or SystemClock(),
        "observer": observer or Observer(),
    }
    if "store" not in settings:
        known["store"] = CheckpointStore(folder / "checkpoints")
        known["dead_letters"] = DeadLetters(folder / "dead-letters", clock=clock)
    limits = {name: settings.pop(name) for name in list(settings) if name in ErrorOptions.model_fields}
    if limits:
        known["errors"] = ErrorOptions(**limits)
    if "max_in_flight" in settings:
        batch = settings.get("batch", BatchOptions())
        settings["batch"] = batch.model_copy(update={"max_in_flight": settings.pop("max_in_flight")})
    parts = known | settings
    services = TailServices(**{name: parts.pop(name) for name in _SERVICES if name in parts})
    return Parts(TailSettings(**parts), services)
