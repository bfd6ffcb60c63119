"""Trying again until it works: with back-off, told to the observer, ended by a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from checkpoints import StoreWriteError, TailKey
from pillows.errors import RetryableError
from pillows.observer import Observer
from pillows.retry.backoff import Patience
from pillows.retry.cancellable import StopAwareWaiter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retrier:
    """What all tries of one tail share.

    Attributes:
        tail: whose tries they are.
        waiter: waits between tries.
        observer: is told of each failure before the wait.
        on_retry: is told where and why, too: the tail, whose state it explains.
    """

    tail: TailKey
    waiter: StopAwareWaiter
    observer: Observer
    on_retry: Callable[[str, str], None] = lambda _where, _error: None

    def tries(self, where: str) -> Tries:
        """Begins to try something at `where` (the source, or a transport's name)."""
        return Tries(self, where)

    def asks(self, where: str) -> Tries:
        """Begins to ask something of `where`: a stop ends an attempt too, not only the wait for the next."""
        return Tries(self, where, given_up=True)


class Tries:
    """The tries at one thing.

    Args:
        retrier: what they share with others.
        where: the source, or a transport's name.
        given_up: whether a stop may end an attempt at any point; a write's own code protects its end.
    """

    def __init__(self, retrier: Retrier, where: str, *, given_up: bool = False) -> None:
        self._retrier = retrier
        self._where = where
        self._given_up = given_up
        self._patience = Patience()

    def until_done(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it raises no `RetryableError`, and the disk takes what it saves.

        Raises:
            StoppedError: a stop was asked for.
        """
        while True:
            try:
                return self._retrier.waiter.run_cancellable(attempt) if self._given_up else attempt()
            except RetryableError as error:
                self.failed(error)
            except StoreWriteError as error:
                self.failed(RetryableError(str(error)))

    def failed(self, error: RetryableError) -> None:
        """Waits before the next try.

        Raises:
            StoppedError: a stop was asked for.
        """
        delay_seconds = self._patience.after(error)
        self._retrier.observer.retry(
            self._retrier.tail,
            where=self._where,
            error=str(error),
            attempt=self._patience.attempts,
            delay_seconds=delay_seconds,
        )
        self._retrier.on_retry(self._where, str(error))
        self._retrier.waiter.wait(delay_seconds)

    def progressed(self) -> None:
        """Something succeeded: the next failure waits shortly again."""
        self._patience.reset()
