"""One connection to PostgreSQL and its transactions, so that no doubtful connection is ever reused.

psycopg waits on gevent's hub once the process is patched. What it does not do is end a query whose
greenlet was killed: the server would run on and hold its locks. So whatever leaves a transaction by
an exception (a kill and a `gevent.Timeout` too) cancels what runs and closes the connection; the next
transaction opens another. That costs some milliseconds where there is trouble anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import gevent
import psycopg
from psycopg import pq

from pillows.errors import RetryableError
from pillows.transports.postgres.connection import connect
from pillows.transports.postgres.errors import translated
from pillows.transports.postgres.options import PostgresConnection

#: Seconds for asking the server to stop a query that nobody waits for any more.
CANCEL_SECONDS = 2.0


class Session:
    """The connection that a transport owns.

    Args:
        options: where and how to connect.
        application: how the server shows us in `pg_stat_activity`.
        prepare: called with a cursor on each new connection, before its first transaction.
    """

    def __init__(
        self,
        options: PostgresConnection,
        *,
        application: str,
        prepare: Callable[[psycopg.Cursor], None],
    ) -> None:
        self._options = options
        self._application = application
        self._prepare = prepare
        self._connection: psycopg.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor]:
        """A transaction: committed at the end of the block, or rolled back with the connection closed.

        Raises:
            RetryableError: the server is away or busy, or did not answer in time.
            AccessError, ConfigError: as `translated` says.
        """
        seconds = self._options.write_timeout
        late = RetryableError(f"PostgreSQL did not finish within {seconds:g} s.")
        try:
            with gevent.Timeout(seconds, late), self._connected().cursor() as cursor:
                cursor.execute("begin")
                yield cursor
                _commit(cursor)
        except psycopg.Error as error:
            self.close()
            raise translated(error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends what still runs, and closes. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=CANCEL_SECONDS)
        finally:
            connection.close()

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._options, self._application)
            with self._connection.cursor() as cursor:
                self._prepare(cursor)
        return self._connection


def _commit(cursor: psycopg.Cursor) -> None:
    cursor.execute("commit")
    # A transaction that had failed answers a commit with a rollback, and with no error.
    if cursor.statusmessage != "COMMIT":
        raise RetryableError(f"PostgreSQL answered the commit with {cursor.statusmessage}.")
