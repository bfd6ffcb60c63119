"""The state of all tails, as answers show it: made at most once a second, or when a tail enters another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.runtime.status import TailStatus

#: Age at which a snapshot is replaced: a little less than the second between two messages of a stream, which
#: come a few milliseconds early or late.
MAX_AGE_SECONDS = 0.9


class Snapshot(Struct, frozen=True, kw_only=True):
    """The state of all tails at one moment.

    Attributes:
        at: monotonic seconds.
        keys: of every tail.
        entered: how many states they had entered.
        statuses: of every tail, in configured order.
    """

    at: float
    keys: Sequence[TailKey]
    entered: int
    statuses: Sequence[TailStatus]


class Snapshots:
    """Holds the newest snapshot.

    The first who asks makes it, and all who ask within the next second share it, unless a tail enters another
    state: whoever waits for that sees it at once. An idle daemon makes none, as one per second of 200 tails
    takes a twelfth of its CPU time. It is made from memory: no request is sent to a server.

    Args:
        statuses: returns the status of every tail.
        keys: returns the keys of the tails; where others come or go, the snapshot is of the past.
        clock: for the age.
        count_entered: returns how many states the tails have entered so far.
    """

    def __init__(
        self,
        statuses: Callable[[], Sequence[TailStatus]],
        keys: Callable[[], Collection[TailKey]],
        clock: Clock,
        count_entered: Callable[[], int] = lambda: 0,
    ) -> None:
        self._statuses = statuses
        self._keys = keys
        self._clock = clock
        self._count_entered = count_entered
        self._newest: Snapshot | None = None

    def get(self) -> Snapshot:
        """Return the newest snapshot, one second old at most, with the present state of each tail."""
        now, keys, entered = self._clock.monotonic(), tuple(self._keys()), self._count_entered()
        newest = self._newest
        if (
            newest is None
            or now - newest.at >= MAX_AGE_SECONDS
            or (newest.keys, newest.entered) != (keys, entered)
        ):
            newest = self._newest = Snapshot(at=now, keys=keys, entered=entered, statuses=self._statuses())
        return newest

    def forget(self) -> None:
        """Make the next request see the changes of an act."""
        self._newest = None
