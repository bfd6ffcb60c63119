"""Trying again until it works: with back-off, told to the observer, ended by a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from checkpoints import StoreWriteError
from pillows.errors import AwayError, RetryableError
from pillows.observer import Observer
from pillows.retry import Backoff
from pillows.waiting import Waiter

T = TypeVar("T")

#: What is away is asked at least this often, so that a pillow goes on within seconds once it is back.
AWAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Retrier:
    """What all tries of one tail share.

    Attributes:
        pillow: the tail's key as text.
        waiter: waits between tries.
        observer: is told of each failure before the wait.
        on_retry: is told where and why, too: the tail, whose state it explains.
    """

    pillow: str
    waiter: Waiter
    observer: Observer
    on_retry: Callable[[str, str], None] = lambda _where, _error: None

    def tries(self, where: str) -> Tries:
        """Begins to try something at `where` (the source, or a transport's name)."""
        return Tries(self, where)


class Tries:
    """The tries at one thing."""

    def __init__(self, retrier: Retrier, where: str) -> None:
        self._retrier = retrier
        self._where = where
        self._backoff = Backoff()
        self._away = False

    def until_done(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it raises no `RetryableError`, and the disk takes what it saves.

        Raises:
            StoppedError: a stop was asked for.
        """
        while True:
            try:
                return attempt()
            except RetryableError as error:
                self.failed(error)
            except StoreWriteError as error:
                self.failed(RetryableError(str(error)))

    def failed(self, error: RetryableError) -> None:
        """Waits before the next try.

        Raises:
            StoppedError: a stop was asked for.
        """
        away = isinstance(error, AwayError)
        if away is not self._away:  # what is back and busy was not busy all the time that it was away
            self._backoff.reset()
            self._away = away
        delay_seconds = self._backoff.next(
            at_least_seconds=error.retry_after_seconds, at_most_seconds=AWAY_SECONDS if away else None
        )
        self._retrier.observer.retry(
            self._retrier.pillow,
            where=self._where,
            error=str(error),
            attempt=self._backoff.attempts,
            delay_seconds=delay_seconds,
        )
        self._retrier.on_retry(self._where, str(error))
        self._retrier.waiter.wait(delay_seconds)

    def progressed(self) -> None:
        """Something succeeded: the next failure waits shortly again."""
        self._backoff.reset()
