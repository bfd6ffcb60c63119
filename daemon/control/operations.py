"""Run work that takes longer than a request; clients ask for its state."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Literal

import gevent
import structlog
from gevent.event import Event
from greenlet import GreenletExit
from msgspec import Struct
from msgspec.structs import asdict

from daemon.control.audit import Act
from daemon.errors import NotFoundError, UnavailableError
from pillows.clock import Clock

#: Operations that run at once, and ended ones that can still be asked about.
MAX_RUNNING = 16
MAX_ENDED = 100
_CLOSE_SECONDS = 2.0

_log = structlog.get_logger("pillowd.operator")


class Operation(Struct, kw_only=True):
    """One piece of work.

    Attributes:
        id: names it.
        kind: the id of the API's operation, such as `repair_documents`.
        pillow: the tail that it is done for.
        state: `running`, `done`, `failed`, or `cancelled` because the daemon stopped.
        done, total: how much of it is done; None if unknown.
        eta_seconds: how long it will yet take; None if unknown.
        started_at, ended_at: wall-clock seconds.
        result: JSON values; None unless it is done.
        problem: the problem document of its error; None unless it failed.
    """

    id: str
    kind: str
    pillow: str
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    done: int | None = None
    total: int | None = None
    eta_seconds: float | None = None
    started_at: float
    ended_at: float | None = None
    result: Any = None
    problem: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)


#: Does the work, and may set `done`, `total` and `eta_seconds` meanwhile; returns the result.
Work = Callable[[Operation], Any]


class Operations:
    """Runs operations, each in its own greenlet.

    Args:
        clock: for times.
        explain: returns the problem document of an error.
    """

    def __init__(self, clock: Clock, explain: Callable[[Exception], Any]) -> None:
        self._clock = clock
        self._explain = explain
        self._all: dict[str, Operation] = {}
        self._ended: dict[str, Event] = {}
        self._greenlets: dict[str, Any] = {}

    def start(self, act: Act, work: Work) -> Operation:
        """Start an operation. The act ends with it.

        Args:
            act: the act in the audit log; names the operation and the pillow.
            work: does it.

        Raises:
            UnavailableError: too many are running.
        """
        if len(self._greenlets) >= MAX_RUNNING:
            raise UnavailableError(f"{MAX_RUNNING} operations are running", remedy="wait until one has ended")
        id = secrets.token_hex(8)
        operation = Operation(id=id, kind=act.name, pillow=act.pillow or "", started_at=self._clock.wall())
        self._all[id], self._ended[id] = operation, Event()
        self._forget_oldest()
        self._greenlets[id] = gevent.spawn(self._run, operation, act, work)
        return operation

    def list(self) -> list[Operation]:
        """Return all operations that are known, oldest first."""
        return list(self._all.values())

    def get(self, id: str, *, wait_seconds: float = 0.0) -> Operation:
        """Return an operation once it has ended, or when the time is up.

        Raises:
            NotFoundError: there is no operation with that id, or it ended long ago.
        """
        if id not in self._all:
            raise NotFoundError("there is no such operation, or it ended long ago")
        if wait_seconds:
            self._clock.wait(self._ended[id], wait_seconds)
        return self._all[id]

    def close(self) -> None:
        """Cancel all operations."""
        gevent.killall(list(self._greenlets.values()), timeout=_CLOSE_SECONDS)

    def _run(self, operation: Operation, act: Act, work: Work) -> None:
        try:
            operation.result = work(operation)
            act.end("done")
            operation.state = "done"
        except GreenletExit:
            act.end("failed", "the daemon stopped")
            operation.state = "cancelled"
        except Exception as error:  # noqa: BLE001  it belongs to who asks for it
            act.end_with(error)
            operation.problem = self._explain(error)
            operation.state = "failed"
        finally:
            operation.ended_at = self._clock.wall()
            self._greenlets.pop(operation.id, None)
            self._ended[operation.id].set()

    def _forget_oldest(self) -> None:
        ended = [id for id, each in self._all.items() if each.state != "running"]
        for id in ended[: max(0, len(ended) - MAX_ENDED)]:
            del self._all[id], self._ended[id]
