"""Active and standby by a lease in PostgreSQL.

One daemon of a service holds an advisory lock in a separate session; the others wait for it. A holder that
ends releases the lock at once. If it hangs, or its machine is gone, a waiting daemon terminates its session
after `SILENT_SECONDS` without a statement. A holder that gets no answer for `LOST_SECONDS` stops before that.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gevent
import psycopg
import structlog
from gevent.event import Event

from daemon.coordination import tables
from daemon.coordination.coordinator import Grant
from daemon.coordination.lease_state import LeaseState
from daemon.coordination.session import LeaseSession, fetch_one
from pillows.clock import Clock, SystemClock
from pillows.errors import RetryableError

#: Longest time between two statements of the holder.
HEARTBEAT_SECONDS = 2.0
#: A holder stops after this time without an answer.
LOST_SECONDS = 6.0
#: A waiting daemon terminates a session that sent no statement for this time.
SILENT_SECONDS = 10.0
#: Interval at which a waiting daemon tries again, and the holder checks whether the lease is lost.
STEP_SECONDS = 0.5

_log = structlog.get_logger("pillowd.daemon")


class LeaseCoordinator:
    """Grants the right to run the pillows to the holder of the lease; see `Coordinator`.

    Args:
        options: of the lease database.
        service: the lease's name.
        clock: for every wait.
    """

    def __init__(self, options: Any, service: str, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._session = LeaseSession(options, self._clock)
        self._service = service
        self._names = {
            "service": service,
            "class": tables.LOCK_CLASS,
            "number": tables.lock_number(service),
            "host": socket.gethostname(),
            "silent": SILENT_SECONDS,
        }
        self._keeper: gevent.Greenlet[..., None] | None = None
        self._on_lost: Callable[[str], None] | None = None

    def acquire(self, stop: Event, each_wait: Callable[[str], None]) -> Grant | None:
        """Wait for the lease; see `Coordinator.acquire`."""
        is_open, told = False, ""
        while not stop.is_set():
            try:
                if not is_open:
                    self._session.open()
                    is_open = True
                if (grant := self._session.run(self._try)) is not None:
                    self._keeper = gevent.spawn(self._keep)
                    _log.info("lease.acquired", service=self._service, term=grant.term)
                    return grant
                reason = f"standby: {self._session.run(self._describe)}"
            except RetryableError as error:
                is_open, reason = False, f"standby: {error}"
            if reason != told:
                told = reason
                _log.info("lease.waiting", service=self._service, reason=reason)
            each_wait(reason)
            self._clock.wait(stop, STEP_SECONDS)
        return None

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` when the lease is lost; see `Coordinator.watch`."""
        self._on_lost = on_lost
        if self._keeper is not None and self._keeper.dead:
            on_lost(self._session.failure)

    def close(self) -> None:
        """Release the lease."""
        if self._keeper is not None:
            self._keeper.kill(block=False)
        self._session.close()

    def _try(self, cursor: psycopg.Cursor) -> Grant | None:
        (is_locked,) = fetch_one(cursor, tables.TRY_LOCK, self._names) or (False,)
        if not is_locked:
            cursor.execute(tables.TERMINATE_SILENT.encode(), self._names)
            return None
        term, is_filled = fetch_one(cursor, tables.TAKE, self._names) or (0, False)
        return Grant(term=term, shared=LeaseState(self._session, self._service, is_filled=is_filled))

    def _describe(self, cursor: psycopg.Cursor) -> str:
        return _describe_row(fetch_one(cursor, tables.HOLDER, self._names))

    def _keep(self) -> None:
        """Send heartbeats until the lease is lost."""
        beating: gevent.Greenlet[..., Any] | None = None
        while True:
            silent_seconds = self._clock.monotonic() - self._session.answered_at
            if self._session.failure or silent_seconds > LOST_SECONDS:
                break
            if silent_seconds >= HEARTBEAT_SECONDS and (beating is None or beating.dead):
                beating = gevent.spawn(self._beat)
            gevent.sleep(STEP_SECONDS)
        reason = self._session.failure or f"the lease database was silent for {silent_seconds:.0f} s"
        _log.error("lease.lost", service=self._service, reason=reason)
        self._session.failure = reason
        if self._on_lost is not None:
            self._on_lost(reason)
        self._session.close()

    def _beat(self) -> None:
        try:
            self._session.run(lambda cursor: cursor.execute(tables.HEARTBEAT.encode(), self._names))
        except RetryableError:
            return  # `_keep` sees the failure


def find_holder(options: Any, service: str) -> str:
    """Return a description of the daemon that holds a lease.

    Raises:
        PillowError: the lease database can't be asked.
    """
    session = LeaseSession(options, SystemClock())
    with closing(session):
        session.open(create=False)
        row = session.run(lambda cursor: _find_row(cursor, service))
    return _describe_row(row) + (f", heard of {row[2]:.0f} s ago" if row else "")


def _find_row(cursor: psycopg.Cursor, service: str) -> tuple[Any, ...] | None:
    if fetch_one(cursor, tables.FIND, {}) == (None,):
        return None
    return fetch_one(cursor, tables.HOLDER, {"service": service})


def _describe_row(row: tuple[Any, ...] | None) -> str:
    if row is None:
        return "no daemon has held the lease yet"
    host, since, _ = row
    return f"{host} holds the lease since {since:%Y-%m-%d %H:%M:%S} UTC"
