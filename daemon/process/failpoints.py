"""Failpoints: named places where a test kills the daemon, or lets a disk fail.

Arming a failpoint wraps the method that it names, so code pays nothing for one that is not armed.
`PILLOWD_FAILPOINT=NAME:COUNT` kills the process, as `kill -9` does, when the place is reached for the
COUNT-th time. `NAME:COUNT:ENOSPC:TIMES` raises that error instead, TIMES times in a row. Separate
several by commas. Only `daemon` reads the variable, and only if `PILLOWD_TESTING=1` is set, too: a forgotten
variable in an environment must not end a daemon.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from msgspec import Struct

from pillows import registry
from pillows.errors import ConfigError

_DIRECTORY = "checkpoints.files.directory:Directory"
_STORE = "checkpoints.checkpoint_store:CheckpointStore"
_SWITCH = "daemon.rebuilds.switch:Switch"


class Place(Struct, frozen=True, kw_only=True):
    """The method that a failpoint wraps.

    Attributes:
        method: `module:Class.method`; the method alone if `transport` gives the class.
        transport: a type of transport.
        before: whether it is reached before the method runs, rather than after it has returned.
    """

    method: str = "write"
    transport: str = ""
    before: bool = False


#: Failpoints in the order of the data path; those of transports are found by `find_place`.
PLACES = {
    "read": Place(method="pillows.progress.watermark:Watermark.begin"),
    "fetch": Place(method="pillows.feed.documents.fetcher:DocumentFetcher.fill"),
    "transform": Place(method="pillows.pillow:Pipeline.outcome"),
    "dead-letter": Place(method="pillows.dead_letters.store:DeadLetters.add"),
    "ack": Place(method="pillows.progress.watermark:Watermark.ack"),
    "checkpoint-write": Place(method=f"{_DIRECTORY}._put"),
    "checkpoint-rename": Place(method=f"{_DIRECTORY}._rename", before=True),
    "checkpoint-fsync": Place(method=f"{_DIRECTORY}._fsync", before=True),
    "drain": Place(method="pillows.delivery.pusher:Pusher.finish", before=True),
    # Around the switch to another build.
    "switch-intent": Place(method=f"{_SWITCH}.run", before=True),
    "switch-exchange": Place(method=f"{_SWITCH}._exchange", before=True),
    "switch-exchanged": Place(method=f"{_SWITCH}._exchange"),
    "switch-noted": Place(method=f"{_SWITCH}._note"),
    "switch-letters": Place(method="pillows.dead_letters.store:DeadLetters.hand_over"),
    "switch-checkpoints": Place(method=f"{_STORE}.exchange", before=True),
    "switch-handed-over": Place(method=f"{_STORE}.exchange"),
    "switch-done": Place(method=f"{_SWITCH}._finish"),
}


class Failpoint(Struct, frozen=True, kw_only=True):
    """An armed place.

    Attributes:
        name: its name.
        count: which pass through the place fails first, counted from 1.
        error: number of the error to raise; None kills the process.
        times: number of passes in a row that raise the error.
    """

    name: str
    count: int
    error: int | None = None
    times: int = 1

    def reach(self, number: int) -> None:
        """Kill the process or raise the error, if this pass is one that fails.

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
    if when in ("before", "after") and registry.has_transport(type):
        return Place(transport=type, before=when == "before")
    return PLACES.get(name)


def parse(setting: str) -> Sequence[Failpoint]:
    """Return the failpoints of a setting.

    Raises:
        ConfigError: the setting is not valid.
    """
    return [_parse_one(part.strip()) for part in setting.split(",") if part.strip()]


def _parse_one(text: str) -> Failpoint:
    name, _, rest = text.partition(":")
    count, _, rest = rest.partition(":")
    error, _, times = rest.partition(":")
    known = not error or isinstance(getattr(errno, error, None), int)
    if find_place(name) is None or not count.isdigit() or not known or not (times or "1").isdigit():
        raise ConfigError(
            f"PILLOWD_FAILPOINT: {text!r} is not a valid failpoint.",
            remedy="write NAME:COUNT or NAME:COUNT:ERROR:TIMES. NAME is before-TYPE or after-TYPE with a "
            f"transport's type, or one of {', '.join(PLACES)}; ERROR is a name such as ENOSPC",
        )
    number = getattr(errno, error) if error else None
    return Failpoint(name=name, count=int(count), error=number, times=int(times or 1))


def arm_from(environ: Mapping[str, str]) -> None:
    """Arm the failpoints of the environment for the rest of the process.

    Raises:
        ConfigError: there are some, and `PILLOWD_TESTING` is not 1; or see `parse`.
    """
    setting = environ.get("PILLOWD_FAILPOINT", "")
    if setting and environ.get("PILLOWD_TESTING") != "1":
        raise ConfigError(
            "PILLOWD_FAILPOINT is set, which makes the daemon fail on purpose.",
            remedy="unset it; in a test, set PILLOWD_TESTING=1, too",
        )
    arm(setting)


def arm(setting: str) -> None:
    """Arm failpoints for the rest of the process.

    Raises:
        ConfigError: see `parse`.
    """
    for failpoint in parse(setting):
        if (place := find_place(failpoint.name)) is not None:
            _wrap(place, failpoint.reach)


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
    """Return the class of a place and the name of its method."""
    if place.transport:
        return registry.transport(place.transport), place.method
    module, _, path = place.method.partition(":")
    owner, _, name = path.partition(".")
    return getattr(importlib.import_module(module), owner), name
