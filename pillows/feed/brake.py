"""Slow a catch-up down, so that a first load leaves a production server time for its users."""

from __future__ import annotations

import re
import time
from typing import Annotated

from gevent.event import Event
from pydantic import AfterValidator

from pillows.clock import Clock

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _check_hours(text: str) -> str:
    if not _HOURS.fullmatch(text):
        raise ValueError("needs two times of day such as 08:00-18:00")
    return text


#: Two local times of day, `08:00-18:00`; over midnight where the second is earlier.
HoursOfDay = Annotated[str, AfterValidator(_check_hours)]


def is_within(hours: str, wall_seconds: float) -> bool:
    """Return whether a time is within hours of the day, by the machine's time zone."""
    found = _HOURS.fullmatch(hours)
    if found is None:
        raise ValueError(f"{hours!r} is not a range of hours")
    begin, end = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
    local = time.localtime(wall_seconds)
    minute = local.tm_hour * 60 + local.tm_min
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


class Brake:
    """Waits after each page until its rows have taken as long as they may.

    Args:
        max_rate: rows per second; None for no limit.
        quiet_hours: when the limit holds; None for always.
        clock: for the time of day and waits.
    """

    def __init__(self, max_rate: float | None, quiet_hours: str | None, clock: Clock) -> None:
        self._max_rate = max_rate
        self._quiet_hours = quiet_hours
        self._clock = clock

    def slow_down(self, rows: int, seconds: float, stop: Event) -> None:
        """Wait after a page.

        Args:
            rows: in the page.
            seconds: that it has taken.
            stop: ends the wait.
        """
        if self._max_rate is None:
            return
        if self._quiet_hours is not None and not is_within(self._quiet_hours, self._clock.wall()):
            return
        if (left := rows / self._max_rate - seconds) > 0:
            self._clock.wait(stop, left)
