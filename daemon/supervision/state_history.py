"""The last states of each tail, with time and reason."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.observer import Observer
from pillows.runtime.status import State

#: States that are remembered of each tail.
LENGTH = 20


class StateChange(Struct, frozen=True, kw_only=True):
    """A state that a tail entered.

    Attributes:
        at: wall-clock seconds.
        state: the state.
        reason: why, where the state needs a reason.
    """

    at: float
    state: State
    reason: str


class StateHistory(Observer):
    """Remembers the last `LENGTH` states of each tail since the daemon started.

    Args:
        clock: for the times.

    Attributes:
        entered: how many states the tails have entered.
    """

    def __init__(self, clock: Clock) -> None:
        self.entered = 0
        self._clock = clock
        self._changes: dict[TailKey, deque[StateChange]] = {}

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        """Remember a state."""
        self.entered += 1
        change = StateChange(at=self._clock.wall(), state=State(state), reason=reason)
        self._changes.setdefault(tail, deque(maxlen=LENGTH)).append(change)

    def removed(self, tail: TailKey) -> None:
        """Forget a tail."""
        self._changes.pop(tail, None)

    def of(self, tail: TailKey) -> Sequence[StateChange]:
        """Return the states of a tail, the oldest first; empty if it has entered none."""
        return tuple(self._changes.get(tail, ()))
