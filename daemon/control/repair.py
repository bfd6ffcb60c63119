"""The control call by which `verify --repair` sends documents through a pipeline again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import structlog
from gevent.event import Event

from checkpoints import TailKey
from daemon.control.tails import Tails
from daemon.errors import ConflictError
from daemon.supervision.supervisor import Supervisor
from pillows.clock import Clock
from pillows.runtime.status import State

_log = structlog.get_logger("pillowd.operator")

#: How long a tail may take to stop for a repair.
_STOP_SECONDS = 20.0

#: In these states a tail without a greenlet is not started by itself.
_HELD = {State.PAUSED, State.FAILED, State.STOPPED}


class RepairCalls:
    """Writes documents again.

    Args:
        tails: the tails that can be named.
        repair: sends documents of a stopped tail, or of a shared one, through its pipeline again.
        hold_reloads: returns a context in which no reload begins: it could remove the tail, or give its
            outputs to another one, while documents are being sent.
        clock: for the wait until a running tail has stopped.
    """

    def __init__(
        self,
        tails: Tails,
        repair: Callable[[TailKey, Sequence[str]], None] | None,
        hold_reloads: Callable[[], AbstractContextManager[None]],
        *,
        clock: Clock,
    ) -> None:
        self._tails = tails
        self._supervisor = tails.supervisor
        self._repair = repair
        self._clock = clock
        self._hold_reloads = hold_reloads

    def check(self) -> None:
        """Check that this process can repair documents.

        Raises:
            ConflictError: this process cannot.
        """
        if self._repair is None:
            raise ConflictError(
                "this process cannot repair documents",
                remedy="`pillowd checkpoint reset` of the pillow writes every document again",
            )

    def repair(self, tail: TailKey, ids: Sequence[str]) -> dict[str, Any]:
        """Send documents through the pipeline again, as they are now; a running tail stops meanwhile.

        One that several daemons share goes on: they write the documents of their partitions.

        Raises:
            ConflictError: the tail does not stop in time, or was removed by a reload.
            RetryableError, FatalError: the documents cannot be sent.
        """
        self.check()
        assert self._repair is not None  # noqa: S101  checked
        _log.warning("verify.repair", pillow=str(tail), documents=len(ids))
        if self._tails.are_shared:  # nothing is stopped that a reload would start
            self._check_present(tail)
            self._repair(tail, ids)
            return {"key": str(tail), "sent": len(ids)}
        with self._hold_reloads():
            if self._tails.find_pattern(tail) is not None:
                self._repair_database(tail, ids)
                return {"key": str(tail), "sent": len(ids)}
            self._check_present(tail)
            with self._hold(tail):
                self._repair(tail, ids)
        return {"key": str(tail), "sent": len(ids)}

    def _repair_database(self, tail: TailKey, ids: Sequence[str]) -> None:
        """Repair one database of a pillow that reads several, in the running pillow."""
        databases = self._tails.find_databases(tail)
        if databases is None or tail.database not in databases:
            raise ConflictError(
                f"{tail} is written with the other databases of {tail.pillow}, which does not run",
                remedy="`pillowd run`, and repair then",
            )
        databases.repair(tail.database, ids)

    def _check_present(self, tail: TailKey) -> None:
        if self._supervisor is not None and tail not in self._supervisor.keys:
            raise ConflictError(f"a reload has removed {tail} meanwhile")

    @staticmethod
    def _may_run(supervisor: Supervisor, tail: TailKey) -> bool:
        """Return whether a tail runs, or is about to: after a crash, or after an earlier repair."""
        return tail in supervisor.running or supervisor.status(tail).state not in _HELD

    @contextmanager
    def _hold(self, tail: TailKey) -> Iterator[None]:
        """Stop a tail that runs, or would start again, until the end of the `with`."""
        if self._supervisor is None or not self._may_run(self._supervisor, tail):
            yield
            return
        self._supervisor.stop(tail)
        try:
            give_up_at = self._clock.monotonic() + _STOP_SECONDS
            while tail in self._supervisor.running:
                if self._clock.monotonic() > give_up_at:
                    raise ConflictError(f"{tail} could not be stopped within {_STOP_SECONDS:g} s")
                self._clock.wait(Event(), 0.05)
            yield
        finally:
            self._supervisor.start(tail)
