"""Keep the latest events that an operator should see, bounded in number and rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.observer import Observer, Rewind
from pillows.runtime.status import State

#: Events that are kept for readers that come late or connect again.
KEPT = 256
#: Shortest time between two events of a kind of one tail, except new states.
_INTERVAL_SECONDS = 60.0
#: States that come and go with every start.
_PASSING = (State.STARTING,)


class NotableEvent(Struct, frozen=True, kw_only=True):
    """One event.

    Attributes:
        number: counts from 1 since the daemon's start.
        at: wall-clock seconds.
        pillow, source: the tail.
        kind: `state`, `rewind`, `dead-letter`, or the name of a warning or notice.
        text: the new state or reason; never data of a document.
        reason: why, for a new state.
        count: how many there were of this kind since the last one, at least 1.
    """

    number: int
    at: float
    pillow: str
    source: str
    kind: str
    text: str = ""
    reason: str = ""
    count: int = 1


class NotableEvents(Observer):
    """Keeps the last events of all tails.

    A new state is always an event. Of everything else there is at most one per minute for each tail and kind,
    which says how many there were.

    Args:
        clock: for the times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[NotableEvent] = deque(maxlen=KEPT)
        self._number = 0
        self._states: dict[TailKey, str] = {}
        self._last: dict[tuple[TailKey, str], float] = {}
        self._left_out: dict[tuple[TailKey, str], int] = {}

    @property
    def number(self) -> int:
        """The number of the last event; 0 before the first."""
        return self._number

    def since(self, number: int) -> Sequence[NotableEvent]:
        """Return the events after `number` that are still kept, oldest first."""
        if number >= self._number:
            return ()
        return [event for event in self._kept if event.number > number]

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        """Note a new state; a new reason alone does not count."""
        if self._states.get(tail) != state and state not in _PASSING:
            self._states[tail] = state
            self._add(tail, "state", text=str(state), reason=reason)

    def rewind(self, tail: TailKey, *, kind: Rewind, reason: str) -> None:
        """Note that a tail reads earlier changes again."""
        del kind
        self._limit(tail, "rewind", text=reason)

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:
        """Note that a document could not be written; neither its id nor the error, which may quote it."""
        del id, error
        self._limit(tail, "dead-letter", text=transport or stage)

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Note a warning by its name; its details may hold ids."""
        del details
        self._limit(tail, event)

    def notice(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Note a rare event of interest by its name."""
        del details
        self._limit(tail, event)

    def removed(self, tail: TailKey) -> None:
        """Forget the state of a tail."""
        self._states.pop(tail, None)
        for kinds in (self._last, self._left_out):
            for key in [key for key in kinds if key[0] == tail]:
                del kinds[key]

    def _limit(self, tail: TailKey, kind: str, **facts: Any) -> None:
        key, now = (tail, kind), self._clock.monotonic()
        if now - self._last.get(key, float("-inf")) < _INTERVAL_SECONDS:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        self._last[key] = now
        self._add(tail, kind, count=1 + self._left_out.pop(key, 0), **facts)

    def _add(self, tail: TailKey, kind: str, **facts: Any) -> None:
        self._number += 1
        self._kept.append(
            NotableEvent(
                number=self._number,
                at=self._clock.wall(),
                pillow=tail.pillow,
                source=tail.source,
                kind=kind,
                **facts,
            )
        )
