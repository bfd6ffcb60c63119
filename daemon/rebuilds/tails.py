"""Stop the tails of a pillow's two builds while the builds are exchanged."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from checkpoints import TailKey
from daemon.errors import ConflictError
from daemon.supervision.supervisor import Supervisor
from pillows.clock import Clock
from pillows.errors import RetryableError
from pillows.runtime.status import TailStatus

#: Longest time for the incoming build to catch up after the outgoing one has stopped.
CATCH_UP_SECONDS = 5.0
#: Extra time to wait for a tail beyond its time to drain.
_KILL_SECONDS = 5.0
_STEP_SECONDS = 0.05


class BuildTails:
    """Holds tails, and waits for them.

    Args:
        supervisor: runs the tails.
        get_drain_seconds: returns the longest time for a tail to drain.
        clock: for waits.
        stop: ends every wait.
    """

    def __init__(
        self, supervisor: Supervisor, get_drain_seconds: Callable[[], float], *, clock: Clock, stop: Event
    ) -> None:
        self._supervisor = supervisor
        self._get_drain_seconds = get_drain_seconds
        self._clock = clock
        self._stop = stop

    def get_status(self, key: TailKey) -> TailStatus | None:
        """Return the status of a tail; None if there is no such tail."""
        return self._supervisor.status(key) if key in self._supervisor.keys else None

    def hold(self, *keys: TailKey) -> None:
        """Ask tails to drain, and keep them stopped; tails that are added later do not start."""
        for key in keys:
            self._supervisor.hold(key)

    def release(self, *keys: TailKey) -> None:
        """Start held tails again."""
        for key in keys:
            self._supervisor.release(key)

    def await_end(self, *keys: TailKey) -> None:
        """Wait until tails have stopped.

        Raises:
            ConflictError: a tail does not stop in time.
        """
        seconds = self._get_drain_seconds() + _KILL_SECONDS
        give_up_at = self._clock.monotonic() + seconds
        while running := [key for key in keys if key in self._supervisor.running]:
            if self._clock.monotonic() >= give_up_at or self._clock.wait(self._stop, _STEP_SECONDS):
                raise ConflictError(f"{running[0]} did not stop in {seconds:g} s")
            self._supervisor.tick()

    def drain(self, live: TailKey, other: TailKey) -> None:
        """Hold both tails of a pillow: first the live one, then the other one as soon as it has caught up.

        Otherwise readers would see older rows than before.

        Raises:
            ConflictError: a tail does not stop in time.
            RetryableError: the other tail does not catch up in time.
        """
        self.hold(live)
        self.await_end(live)
        give_up_at = self._clock.monotonic() + CATCH_UP_SECONDS
        while (status := self.get_status(other)) is None or status.pending != 0:
            if self._clock.monotonic() >= give_up_at or self._clock.wait(self._stop, _STEP_SECONDS):
                raise RetryableError(
                    f"{other} did not catch up within {CATCH_UP_SECONDS:g} s while {live} was stopped. The "
                    "switch is tried again later."
                )
        self.hold(other)
        self.await_end(other)
