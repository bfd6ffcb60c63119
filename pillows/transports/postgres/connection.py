"""One connection to PostgreSQL and its transactions; a connection in an unknown state is never reused.

psycopg waits on gevent's hub once the process is patched. It does not end a query whose greenlet was
killed: the server would run on and hold its locks. So every exception in a transaction (also a kill and
a `gevent.Timeout`) cancels the query and closes the connection; the next transaction opens another. That
costs some milliseconds, in an error anyway.

Behind PgBouncer in transaction mode each transaction may have another session of the server, which others
use before and after. There, settings and temporary tables end with the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import gevent
import psycopg
from psycopg import pq

from pillows.errors import RetryableError
from pillows.transports.postgres.errors import to_pillow_error
from pillows.transports.postgres.open_connection import apply_settings, is_pooled, open_connection
from pillows.transports.postgres.options import PostgresConnection

_BEGIN = b"begin isolation level read committed; "

#: Longest time to cancel a query after its caller has given up.
CANCEL_SECONDS = 2.0


class ServerConnection:
    """The connection that a transport owns.

    Args:
        options: of the database.
        application: our name in `pg_stat_activity`.
        prepare: called with a cursor on each new connection before its first transaction; behind a pool of
            sessions in each transaction. The flag means that nothing may outlive the transaction.
    """

    def __init__(
        self,
        options: PostgresConnection,
        *,
        application: str,
        prepare: Callable[[psycopg.Cursor, bool], None],
    ) -> None:
        self._options = options
        self._application = application
        self._prepare = prepare
        self._connection: psycopg.Connection | None = None
        self._is_pooled = False

    @contextmanager
    def transaction(self, first: bytes = b"") -> Iterator[psycopg.Cursor]:
        """Begin a transaction: committed at the end of the block, or rolled back by closing the connection.

        The block may commit by itself.

        Args:
            first: statements without parameters that are executed first, if possible in one round trip with
                the beginning; the cursor has the result of the last one.

        Raises:
            RetryableError: the server can't be reached, is busy, or did not answer in time.
            AccessError, ConfigError: see `to_pillow_error`.
        """
        seconds = self._options.write_timeout
        late = RetryableError(f"PostgreSQL did not finish within {seconds:g} s.")
        try:
            with gevent.Timeout(seconds, late), self._ensure_connected().cursor() as cursor:
                if self._is_pooled:
                    cursor.execute(_BEGIN)
                    apply_settings(cursor, self._options, self._application, is_local=True)
                    self._prepare(cursor, True)
                    if first:
                        cursor.execute(first)
                else:
                    cursor.execute(_BEGIN + first)
                while cursor.nextset():
                    pass
                yield cursor
                if cursor.connection.info.transaction_status is not pq.TransactionStatus.IDLE:
                    _commit(cursor)
        except psycopg.Error as error:
            self.close()
            raise to_pillow_error(error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel the query that still runs, and close. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=CANCEL_SECONDS)
        finally:
            connection.close()

    def _ensure_connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = open_connection(self._options, self._application)
            self._is_pooled = is_pooled(self._connection)
            if not self._is_pooled:
                with self._connection.cursor() as cursor:
                    self._prepare(cursor, False)
        return self._connection


def _commit(cursor: psycopg.Cursor) -> None:
    cursor.execute("commit")
    # The commit of a failed transaction is answered with a rollback, without an error.
    if cursor.statusmessage != "COMMIT":
        raise RetryableError(f"PostgreSQL answered the commit with {cursor.statusmessage}.")
