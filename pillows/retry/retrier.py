"""Retry until it works: with back-off, reported to the observer, ended by a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from checkpoints import StoreWriteError, TailKey
from pillows.errors import FatalError, RetryableError, StoppedError
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
        on_trouble: called with the operation's back-off and the reason before each wait, and with "" once
            the operation has succeeded, or is refused for good.
    """

    tail: TailKey
    waiter: StopAwareWaiter
    observer: Observer
    on_trouble: Callable[[Backoff, str], None] = lambda _operation, _reason: None

    def retry_write(self, where: str, attempt: Callable[[], T], backoff: Backoff | None = None) -> T:
        """Call `attempt` until it raises neither `RetryableError` nor `StoreWriteError`.

        A stop ends only the waits: a write itself is finished.

        Args:
            where: what the observer is told: a transport's name, `checkpoint` or `source`.
            attempt: writes.
            backoff: counts failures; a new one unless given. Whoever gives it calls `end` with it.

        Raises:
            StoppedError: a stop was requested.
        """
        if backoff is not None:
            return self._retry(where, attempt, backoff)
        backoff = Backoff()
        try:
            result = self._retry(where, attempt, backoff)
        except (StoppedError, FatalError):  # the run ends in trouble
            raise
        except Exception:
            self.end(backoff)
            raise
        self.end(backoff)
        return result

    def end(self, backoff: Backoff) -> None:
        """Report that the operation with this back-off is not retried any more."""
        if backoff.attempts:
            self.on_trouble(backoff, "")

    def _retry(self, where: str, attempt: Callable[[], T], backoff: Backoff) -> T:
        while True:
            try:
                return attempt()
            except RetryableError as error:
                failure = error
            except StoreWriteError as error:
                failure = RetryableError(str(error))
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
        self.on_trouble(backoff, f"{where}: {error}")
        self.waiter.wait(delay_seconds)
