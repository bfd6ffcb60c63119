"""Retry until it works: with back-off, reported to the observer, ended by a stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from checkpoints import StoreWriteError, TailKey
from pillows.errors import FatalError, RetryableError, StoppedError
from pillows.observer import Observer
from pillows.retry.backoff import Backoff
from pillows.retry.cancellable import StopAwareWaiter

T = TypeVar("T")


class Retrier(Struct, frozen=True):
    """Retries everything that one tail reads and writes.

    Attributes:
        tail: the tail, for the observer.
        waiter: waits between attempts.
        observer: receives each failure before the wait.
        on_trouble: called with the operation's back-off and the reason before each wait, and with "" once
            the operation has succeeded, or is refused for good.
        check_ownership: called before each attempt; see `TailServices`.
    """

    tail: TailKey
    waiter: StopAwareWaiter
    observer: Observer
    on_trouble: Callable[[Backoff, str], None] = lambda _operation, _reason: None
    check_ownership: Callable[[], None] = lambda: None

    def retry_write(self, where: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises neither `RetryableError` nor `StoreWriteError`.

        A stop ends only the waits: a write itself is finished.

        Args:
            where: for the observer: a transport's name, `checkpoint` or `source`.
            attempt: writes.

        Raises:
            StoppedError: a stop was requested.
        """
        backoff: Backoff | None = None
        while True:
            try:
                self.check_ownership()
                result = attempt()
            except RetryableError as error:
                failure = error
            except StoreWriteError as error:
                failure = RetryableError(str(error))
            except (StoppedError, FatalError):  # the run ends in trouble
                raise
            except Exception:
                self._end_trouble(backoff)
                raise
            else:
                if backoff is not None:
                    self._end_trouble(backoff)
                return result
            backoff = backoff or Backoff()
            self._wait(where, failure, backoff)

    def retry_read(self, where: str, attempt: Callable[[], T]) -> T:
        """Call `attempt`, which only reads, as `retry_write` does; a stop ends the attempt, too."""
        return self.retry_write(where, lambda: self.waiter.run_cancellable(attempt))

    def _end_trouble(self, backoff: Backoff | None) -> None:
        if backoff is not None:
            self.on_trouble(backoff, "")

    def _wait(self, where: str, error: RetryableError, backoff: Backoff) -> None:
        """Report a failure, and wait before the next attempt."""
        delay_seconds = backoff.after(error)
        self.observer.retry(
            self.tail, where=where, error=str(error), attempt=backoff.attempts, delay_seconds=delay_seconds
        )
        self.on_trouble(backoff, f"{where}: {error}")
        self.waiter.wait(delay_seconds)
