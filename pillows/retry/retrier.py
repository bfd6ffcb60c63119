"""Retry until it works: with back-off, reported to the observer, ended by a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from checkpoints import StoreWriteError, TailKey
from pillows.errors import RetryableError
from pillows.observer import Observer
from pillows.retry.backoff import Backoff
from pillows.retry.cancellable import StopAwareWaiter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retrier:
    """Retries everything that one tail reads and writes.

    Attributes:
        tail: the tail, for the observer.
        waiter: waits between attempts.
        observer: receives each failure before the wait.
        on_retry: called with where and why before each wait.
    """

    tail: TailKey
    waiter: StopAwareWaiter
    observer: Observer
    on_retry: Callable[[str, str], None] = lambda _where, _error: None

    def retry_write(self, where: str, attempt: Callable[[], T], backoff: Backoff | None = None) -> T:
        """Call `attempt` until it raises neither `RetryableError` nor `StoreWriteError`.

        A stop ends only the waits: a write itself is finished.

        Args:
            where: what the observer is told: a transport's name, `checkpoint` or `source`.
            attempt: writes.
            backoff: counts failures; a new one unless given.

        Raises:
            StoppedError: a stop was requested.
        """
        while True:
            try:
                return attempt()
            except RetryableError as error:
                failure = error
            except StoreWriteError as error:
                failure = RetryableError(str(error))
            backoff = backoff or Backoff()
            self.wait(where, failure, backoff)

    def retry_read(self, where: str, attempt: Callable[[], T]) -> T:
        """Call `attempt`, which only reads, as `retry_write` does; a stop ends the attempt, too."""
        return self.retry_write(where, lambda: self.waiter.run_cancellable(attempt))

    def wait(self, where: str, error: RetryableError, backoff: Backoff) -> None:
        """Report a failure, and wait before the next attempt.

        Raises:
            StoppedError: a stop was requested.
        """
        delay_seconds = backoff.after(error)
        self.observer.retry(
            self.tail, where=where, error=str(error), attempt=backoff.attempts, delay_seconds=delay_seconds
        )
        self.on_retry(where, str(error))
        self.waiter.wait(delay_seconds)
