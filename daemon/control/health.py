"""Check whether the process is alive, and whether it is ready, for service managers and load balancers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from checkpoints import TailKey
from daemon.supervision.supervisor import Supervisor
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

#: A supervisor that ticked longer ago than this does not watch its tails any more.
TICK_SECONDS = 5.0


class Check(Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        name: the checked part.
        passed: whether it is well.
        detail: the finding.
    """

    name: str
    passed: bool
    detail: str = ""


class Health:
    """Looks at the supervisor and the states of its tails.

    Args:
        supervisor: of the running daemon.
        clock: for ages.
    """

    def __init__(self, supervisor: Supervisor, clock: Clock) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._tried: set[TailKey] = set()

    def live(self) -> list[Check]:
        """Return the checks of the process; only a restart helps if one fails."""
        seconds = self._clock.monotonic() - self._supervisor.ticked_at
        return [
            Check(name="supervisor", passed=seconds <= TICK_SECONDS, detail=f"ticked {seconds:.1f} s ago")
        ]

    def ready(self, statuses: Sequence[TailStatus], *, strict: bool = False) -> list[Check]:
        """Return the checks of all pillows: each has tried once, and none has failed.

        Args:
            statuses: of all tails.
            strict: whether a tail that backs off counts as not ready.
        """
        is_ending = self._supervisor.ending
        daemon = Check(name="daemon", passed=not is_ending, detail="stopping" if is_ending else "running")
        return [daemon, *self._check_pillows(statuses, strict=strict)]

    def _check_pillows(self, statuses: Sequence[TailStatus], *, strict: bool) -> Iterator[Check]:
        unwell = {State.FAILED} | ({State.BACKING_OFF} if strict else set())
        for status in statuses:
            key = TailKey(status.pillow, status.source)
            if status.state is not State.STARTING:
                self._tried.add(key)  # a restart does not make it new again
            passed = key in self._tried and status.state not in unwell
            yield Check(name=status.pillow, passed=passed, detail=str(status.state))
