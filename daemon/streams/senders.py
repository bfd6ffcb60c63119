"""Send server-sent events (HTML Living Standard, 9.2): one loop for each stream, until its time is up.

A sender makes the next message only once its reader has taken the last. So at most one message waits for a
slow reader, and a reader that does not take it in time loses its connection.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import msgspec
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import TailKey
from daemon.control.snapshot import Snapshot
from daemon.streams.notable_events import NotableEvents
from daemon.streams.status_updates import Facts, StatusUpdates, Update
from daemon.streams.taps import Stage, Taps
from pillows.clock import Clock
from pillows.runtime.status import TailStatus

#: A stream ends after this time, so that none is forgotten; the reader opens another.
STREAM_SECONDS = 600.0
#: Interval of the statuses.
STATUS_SECONDS = 1.0
#: A reader that hears nothing for 15 s takes its connection for lost.
SILENCE_SECONDS = 5.0
COMMENT_SECONDS = 15.0
#: Number of the latest events that a new reader gets.
_FIRST_EVENTS = 20
#: What the reader waits before it connects again, in milliseconds.
_RETRY = b"retry: 1000\n\n"
_COMMENT = b": still here\n\n"


class EventSource:
    """Sends the states and events of all tails to any number of readers.

    Args:
        snapshot: returns the statuses of all tails, a second old at most.
        describe: returns the facts of a tail for readers.
        events: the notable events.
        clock: for intervals and times.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        describe: Callable[[TailStatus], Facts],
        events: NotableEvents,
        clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._describe = describe
        self._events = events
        self._clock = clock
        self._changes = StatusUpdates()
        self._noted_at: float | None = None
        self._run = secrets.token_hex(4)
        self._formatted: tuple[Update | None, bytes] = None, b""
        self._started_at = clock.monotonic()

    def stream(self, last_event_id: str = "") -> Iterator[bytes]:
        """Yield messages: `status` once a second with the changes, `event` for a notable event.

        Args:
            last_event_id: that of the reader's last message; without it, and if it is one of another run of
                the daemon, the first `status` is complete.
        """
        statuses, number = self._parse(last_event_id)
        clock = self._clock
        ends_at = clock.monotonic() + STREAM_SECONDS
        status_at, comment_at = -SILENCE_SECONDS, clock.monotonic()
        yield _RETRY
        while clock.monotonic() < ends_at:
            update = self._update(statuses)
            statuses = update.version
            now = clock.monotonic()
            if update.pillows or update.gone or update.complete or now - status_at >= SILENCE_SECONDS:
                status_at = now
                yield format_message("status", self._format(update), id=self._id(statuses, number))
            for event in self._events.since(number):
                number = event.number
                yield format_message("event", msgspec.json.encode(event), id=self._id(statuses, number))
            if now - comment_at >= COMMENT_SECONDS:
                comment_at = now
                yield _COMMENT
            clock.wait(Event(), _until_next_turn(clock.monotonic()))

    def _update(self, statuses: int | None) -> Update:
        snapshot = self._snapshot()
        if snapshot.at != self._noted_at:
            self._noted_at = snapshot.at
            # Without the token: it is a position in data, and not for everybody.
            facts = [self._describe(replace(status, seq=None)) for status in snapshot.statuses]
            self._changes.note(facts, snapshot.at)
        return self._changes.since(statuses)

    def _format(self, update: Update) -> bytes:
        """Return an update as JSON; readers at the same version share it."""
        if update is not self._formatted[0]:
            self._formatted = update, self._encode(update)
        return self._formatted[1]

    def _encode(self, update: Update) -> bytes:
        message: dict[str, Any] = {
            "complete": update.complete,
            "pillows": [msgspec.Raw(each) for each in update.pillows],
            "gone": update.gone,
        }
        if update.complete:
            up_seconds = self._clock.monotonic() - self._started_at
            at = self._clock.wall()
            message["daemon"] = {"version": version("pillowd"), "up_seconds": up_seconds, "at": at}
        return msgspec.json.encode(message)

    def _id(self, statuses: int, number: int) -> str:
        return f"{self._run}-{statuses}-{number}"

    def _parse(self, last_event_id: str) -> tuple[int | None, int]:
        run, _, rest = last_event_id.partition("-")
        statuses, _, number = rest.partition("-")
        if run == self._run and statuses.isdecimal() and number.isdecimal() and len(rest) < 40:
            return int(statuses), int(number)
        return None, max(0, self._events.number - _FIRST_EVENTS)


def stream_tap(
    taps: Taps, tail: TailKey, stage: Stage, *, rate: float, values: bool, clock: Clock
) -> Iterator[bytes]:
    """Yield a message `change` or `rows` for each sample; see `daemon.streams.taps`."""
    ends_at = clock.monotonic() + STREAM_SECONDS
    yield _RETRY
    with taps.open(tail, stage, rate=rate, values=values) as tap:
        while (left := ends_at - clock.monotonic()) > 0:
            sample = tap.next(min(left, COMMENT_SECONDS))
            if sample is None:
                yield _COMMENT
            else:
                data = msgspec.json.encode({"at": clock.wall(), "passed": tap.passed, **sample})
                yield format_message(stage, data)


def _until_next_turn(now: float) -> float:
    """Return the seconds until all streams send, at the same moment.

    Waking the process 16 times costs more than its work does.

    Args:
        now: monotonic seconds.
    """
    seconds = STATUS_SECONDS - now % STATUS_SECONDS
    return seconds if seconds > STATUS_SECONDS / 4 else seconds + STATUS_SECONDS


def format_message(event: str, data: bytes, *, id: str = "") -> bytes:
    """Return one message. JSON has no raw line break, so the data is one line."""
    head = f"id: {id}\nevent: {event}\ndata: " if id else f"event: {event}\ndata: "
    return b"".join((head.encode(), data, b"\n\n"))
