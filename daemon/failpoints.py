"""Named places where a test lets the daemon die, or a disk refuse.

A failpoint is put in when it is armed, by wrapping the method that it names; code that runs without
one has no trace of it. `PILLOWD_FAILPOINT=NAME:COUNT` (only `daemon` reads it) kills the process, as
`kill -9` does, when the place is reached for the COUNT-th time; `NAME:COUNT:ENOSPC:TIMES` raises that
error instead, so many times in a row. Several are separated by commas.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from pillows import registry
from pillows.errors import ConfigError

_DIRECTORY = "checkpoints.files.directory:Directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a failpoint is.

    Attributes:
        method: `module:Class.method`; of a transport `write`, of the class for its type.
        transport: the type of a transport.
        before: reached before the method does its work, rather than once it has returned.
    """

    method: str = "write"
    transport: str = ""
    before: bool = False


#: Failpoints in the order of the data path; those of transports are found by `find_place`.
PLACES = {
    "read": Place(method="pillows.progress.watermark:Watermark.begin"),
    "fetch": Place(method="pillows.feed.document_fetcher:DocumentFetcher.fill"),
    "transform": Place(method="pillows.pillow:Pipeline.outcome"),
    "dead-letter": Place(method="pillows.dead_letters.store:DeadLetters.add"),
    "ack": Place(method="pillows.progress.watermark:Watermark.ack"),
    "checkpoint-write": Place(method=f"{_DIRECTORY}._put"),
    "checkpoint-rename": Place(method=f"{_DIRECTORY}._rename", before=True),
    "checkpoint-fsync": Place(method=f"{_DIRECTORY}._fsync", before=True),
    "drain": Place(method="pillows.delivery.pusher:Pusher.finish", before=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """An armed place.

    Attributes:
        name: of the place.
        count: it fails when it is reached for this time, counted from 1.
        error: number of the error that is raised; None kills the process.
        times: how many times in a row the error is raised.
    """

    name: str
    count: int
    error: int | None = None
    times: int = 1

    def reached(self, number: int) -> None:
        """Does what was asked for, if this is the time.

        Raises:
            OSError: the armed error.
        """
        if not self.count <= number < self.count + self.times:
            return
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(self.error, f"{os.strerror(self.error)} (failpoint {self.name})")


def find_place(name: str) -> Place | None:
    """Return the place of a failpoint; None if there is none of that name.

    Each type of transport has two, before and after a batch is written: `before-sqlite`, `after-sqlite`.
    """
    when, _, type = name.partition("-")
    if when in ("before", "after") and type in registry.transport_types():
        return Place(transport=type, before=when == "before")
    return PLACES.get(name)


def parse(setting: str) -> Sequence[Failpoint]:
    """The failpoints that a setting names.

    Raises:
        ConfigError: it names a place that is none, or is not written as the module says.
    """
    return [_parsed(part.strip()) for part in setting.split(",") if part.strip()]


def _parsed(text: str) -> Failpoint:
    name, _, rest = text.partition(":")
    count, _, rest = rest.partition(":")
    error, _, times = rest.partition(":")
    known = not error or isinstance(getattr(errno, error, None), int)
    if find_place(name) is None or not count.isdigit() or not known or not (times or "1").isdigit():
        raise ConfigError(
            f"PILLOWD_FAILPOINT: {text!r} is no failpoint.",
            remedy="write NAME:COUNT or NAME:COUNT:ERROR:TIMES, NAME one of before-TYPE and after-TYPE"
            f" of a transport's type, {', '.join(PLACES)}",
        )
    number = getattr(errno, error) if error else None
    return Failpoint(name=name, count=int(count), error=number, times=int(times or 1))


def arm(setting: str) -> None:
    """Arms failpoints for the rest of the process.

    Raises:
        ConfigError: see `parse`.
    """
    for failpoint in parse(setting):
        if (place := find_place(failpoint.name)) is not None:
            _wrap(place, failpoint.reached)


def _wrap(place: Place, reached: Callable[[int], None]) -> None:
    owner, name = find(place)
    method = getattr(owner, name)
    numbers = itertools.count(1)

    @wraps(method)
    def failing(*args: Any, **kwargs: Any) -> Any:
        if place.before:
            reached(next(numbers))
        result = method(*args, **kwargs)
        if not place.before:
            reached(next(numbers))
        return result

    setattr(owner, name, failing)


def find(place: Place) -> tuple[type, str]:
    """The class of a place, and the name of its method."""
    if place.transport:
        return registry.transport(place.transport), place.method
    module, _, path = place.method.partition(":")
    owner, _, name = path.partition(".")
    return getattr(importlib.import_module(module), owner), name
