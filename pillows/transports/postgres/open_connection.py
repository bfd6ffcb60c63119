"""Open a connection to PostgreSQL, and find the reason if the server refuses it."""

from __future__ import annotations

import os
import re
import select
import time
from typing import Any

import gevent
import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo

from pillows.errors import PillowError
from pillows.tcp_keepalive import IDLE_SECONDS, INTERVAL_SECONDS, PROBES, USER_TIMEOUT_MS
from pillows.transports.postgres.errors import to_pillow_error
from pillows.transports.postgres.options import PostgresConnection

_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": str(IDLE_SECONDS),
    "keepalives_interval": str(INTERVAL_SECONDS),
    "keepalives_count": str(PROBES),
    "tcp_user_timeout": str(USER_TIMEOUT_MS),
}

# They end with the session, or with the transaction behind a pool of sessions (PgBouncer), where nothing may
# be left for the next client.
#
# synchronous_commit is never off: a crash of the server would undo acknowledged commits, and the pillow's
# other transports and the state directory would be ahead. One flush per batch costs little. jit compiles
# for longer than our statements run. UTC and ISO: the meaning of a timestamp's text must not depend on the
# role's settings.
_SETTINGS = """
    select set_config(name, value, %(is_local)s) from (values
        ('application_name', %(application)s),
        ('statement_timeout', %(statement_ms)s),
        ('lock_timeout', %(lock_ms)s),
        ('idle_in_transaction_session_timeout', %(idle_ms)s),
        ('default_transaction_isolation', 'read committed'),
        ('client_min_messages', 'warning'),
        ('datestyle', 'ISO, MDY'),
        ('timezone', 'UTC'),
        ('jit', 'off'),
        ('synchronous_commit', case current_setting('synchronous_commit')
            when 'off' then 'local' else current_setting('synchronous_commit') end)
    ) as setting (name, value)
"""


class HubConnection(psycopg.Connection):
    """Waits for its socket on gevent's hub.

    psycopg itself would wait through gevent's `poll`, which makes several objects for each wait and wakes up
    ten times a second: 87 us for each statement instead of 47. There is no deadline but one that the caller
    sets as a `gevent.Timeout`.
    """

    _watcher: Any = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Run a generator of psycopg to its end, and return its result.

        Args:
            gen: yields what it waits for. The bits of `psycopg.waiting.Wait` are those of gevent's events.
            interval: used only with a timeout.
            timeout: seconds; None to wait for as long as it takes.

        Raises:
            psycopg.Error: the statement failed, or another greenlet closed the connection.
        """
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        hub = gevent.get_hub()
        try:
            wanted = next(gen)
            while True:
                self._watcher = hub.loop.io(self.pgconn.socket, wanted)
                try:
                    hub.wait(self._watcher)
                finally:
                    self._watcher.close()
                    self._watcher = None
                # If it waited for either, both are tried: libpq does not block.
                wanted = gen.send(wanted)
        except StopIteration as end:
            result: RV = end.value
            return result

    def close(self) -> None:
        """Close the connection; a greenlet that waits for it gets an error."""
        if self._watcher is not None:
            error = psycopg.OperationalError("The connection was closed.")
            gevent.get_hub().cancel_wait(self._watcher, error, close_watcher=True)
        super().close()


def open_connection(options: PostgresConnection, application: str) -> psycopg.Connection:
    """Return a new connection with our settings, in autocommit: the caller executes `begin` and `commit`.

    Raises:
        RetryableError: the server is away, starting, stopping or full.
        AccessError: it denies access.
        ConfigError: there is no such database.
    """
    conninfo = _conninfo(options)
    try:
        # Prepared statements would keep a plan made when the table was still small.
        connection = HubConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise _to_refusal(error, conninfo, options.connect_timeout) from None
    try:
        if not is_pooled(connection):
            connection.execute("set temp_buffers = '32MB'")
            with connection.cursor() as cursor:
                apply_settings(cursor, options, application, is_local=False)
    except BaseException:
        connection.close()
        raise
    return connection


def is_pooled(connection: psycopg.Connection) -> bool:
    """Return whether a pool is between us and the server, which may give each transaction another session.

    PgBouncer gives each client its own process number (`BackendKeyData`), for cancelling.
    """
    found = connection.execute("select pg_backend_pid()").fetchone()
    return found is None or found[0] != connection.info.backend_pid


def apply_settings(
    cursor: psycopg.Cursor, options: PostgresConnection, application: str, *, is_local: bool
) -> None:
    """Apply our settings to the session, or only to the current transaction."""
    cursor.execute(_SETTINGS, _settings(options, application) | {"is_local": is_local})


def _conninfo(options: PostgresConnection) -> str:
    # A whole number of seconds; libpq uses 2 for 1.
    given = {"client_encoding": "UTF8", "connect_timeout": str(max(2, round(options.connect_timeout)))}
    if options.password is not None:
        given["password"] = options.password.get_secret_value()
    return make_conninfo(options.dsn.get_secret_value(), **_KEEPALIVE, **given)


def _settings(options: PostgresConnection, application: str) -> dict[str, Any]:
    return {
        "application": application,
        "statement_ms": str(round(options.statement_timeout * 1000)),
        "lock_ms": str(round(options.lock_timeout * 1000)),
        "idle_ms": str(round(options.write_timeout * 1000)),
    }


def _to_refusal(error: psycopg.OperationalError, conninfo: str, seconds: float) -> PillowError:
    refused = error.pgconn
    if refused is None:
        return to_pillow_error(error)
    # The address that answered: libpq would resolve the name without gevent.
    address = {"host": refused.host, "hostaddr": refused.hostaddr, "port": refused.port}
    place = {name: value.decode() for name, value in address.items() if value}
    return to_pillow_error(error, sqlstate=_trace_sqlstate(make_conninfo(conninfo, **place), seconds))


def _trace_sqlstate(conninfo: str, seconds: float) -> str | None:
    """Return the SQLSTATE with which the server refuses a connection; None if it does not answer.

    libpq returns only the (translated) message, so we connect once more with a trace of the protocol,
    in memory. Without it a wrong password would be retried forever, or a full server given up.
    """
    if not hasattr(os, "memfd_create"):  # tracing needs Linux
        return None
    trace = os.memfd_create("pillowd-connect")
    try:
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(trace)
            _poll(connection, time.monotonic() + seconds)
            connection.untrace()
        finally:
            connection.finish()
        text = os.pread(trace, 2**20, 0)
    finally:
        os.close(trace)
    found = re.search(rb'\tErrorResponse\t.*? C "(\w{5})" M ', text)
    return found[1].decode() if found else None


def _poll(connection: pq.abc.PGconn, deadline: float) -> None:
    waiting = {pq.PollingStatus.READING, pq.PollingStatus.WRITING}
    while (state := connection.connect_poll()) in waiting and (left := deadline - time.monotonic()) > 0:
        reading = state == pq.PollingStatus.READING
        socket = [connection.socket]
        select.select(socket if reading else [], [] if reading else socket, [], left)
