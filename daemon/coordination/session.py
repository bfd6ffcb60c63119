"""The session that holds the lease, in the lease database.

A terminated session can commit nothing, so every commit happens while the session holds the lease. A holder
that another daemon has replaced can't change the service's state, however late it wakes up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gevent
import psycopg
from gevent.lock import BoundedSemaphore

from checkpoints.files.blocking import call_safely
from daemon.coordination import tables
from pillows.clock import Clock
from pillows.errors import ConfigError, PillowError, RetryableError
from pillows.transports.postgres.errors import to_pillow_error
from pillows.transports.postgres.open_connection import is_pooled, open_connection
from pillows.transports.postgres.options import PostgresConnection

T = TypeVar("T")

#: Longest time of one call; then the session is closed.
CALL_SECONDS = 4.0
_SETTINGS = """
    select set_config('statement_timeout', '4s', false), set_config('lock_timeout', '4s', false),
        set_config('idle_in_transaction_session_timeout', '10s', false),
        set_config('search_path', %s, false)
"""


class LeaseSession:
    """One session, opened when it is first used. After an error it is closed for good.

    Args:
        options: of the lease database.
        clock: measures how long ago the server answered.

    Attributes:
        answered_at: monotonic seconds of the last answer.
        failure: why the session ended; "" while it lives.
    """

    def __init__(self, options: PostgresConnection, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._turn = BoundedSemaphore(1)
        self._connection: psycopg.Connection | None = None
        self.answered_at = clock.monotonic()
        self.failure = ""

    def open(self, *, create: bool = True) -> None:
        """Connect.

        Args:
            create: create the tables if they are missing.

        Raises:
            ConfigError: the connection goes through a pooler, or the settings are wrong.
            RetryableError, AccessError: the server can't be reached, or denies access.
        """
        self.close()
        connection = open_connection(self._options, "pillowd lease")
        try:
            _refuse_pool(connection)
            connection.execute(_SETTINGS, ['"{}"'.format(self._options.schema_.replace('"', '""'))])
            if create:
                connection.execute(tables.CREATE.encode())
        except psycopg.Error as error:
            connection.close()
            raise to_pillow_error(error) from None
        except BaseException:
            connection.close()
            raise
        self._connection, self.failure = connection, ""
        self.answered_at = self._clock.monotonic()

    def run(self, work: Callable[[psycopg.Cursor], T]) -> T:
        """Run statements in one transaction, and return the result.

        They continue if the calling greenlet is killed: the session must not end with a tail.

        Raises:
            RetryableError: the session has ended.
        """
        result, error = gevent.spawn(call_safely, lambda: self._run(work)).get()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # there is one if there is no error

    def close(self) -> None:
        """End the session, which releases the lease."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, work: Callable[[psycopg.Cursor], T]) -> T:
        with self._turn:
            connection = self._connection
            if connection is None:
                raise RetryableError(
                    f"The session that held the lease has ended: {self.failure or 'it was closed'}."
                )
            with self._ending_on_error(), connection.cursor() as cursor:
                # Not `connection.transaction()`: after an error it would wait for a rollback.
                cursor.execute("begin")
                result = work(cursor)
                cursor.execute("commit")
            self.answered_at = self._clock.monotonic()
            return result

    @contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        late = RetryableError(f"The lease database did not answer within {CALL_SECONDS:g} s.")
        try:
            with gevent.Timeout(CALL_SECONDS, late):
                yield
        except psycopg.Error as error:
            failure: PillowError = to_pillow_error(error)
            self._end(failure)
            raise RetryableError(f"The session that held the lease has ended: {failure}") from None
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, failure: BaseException) -> None:
        self.failure = self.failure or str(failure) or type(failure).__name__
        self.close()


def _refuse_pool(connection: psycopg.Connection) -> None:
    if is_pooled(connection):
        raise ConfigError(
            "The lease database is behind a pooler such as PgBouncer: a lease needs a session of its own.",
            remedy="set the connection of `coordination` to the server's own address",
        )


def fetch_one(cursor: psycopg.Cursor, statement: str, arguments: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the first row of a statement's result."""
    return cursor.execute(statement.encode(), arguments).fetchone()
