"""One batch to all transports at once.

Every transport gets the batch in a greenlet of its own and keeps trying until each document is
final there; all results are awaited. A failing transport is retried alone: writing again to the
good ones would turn one bad output into duplicates in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gevent

from pillows.errors import PillowError, RetryableError, StoppedError
from pillows.models import Batch, WriteResult
from pillows.observer import Observer
from pillows.retry import Backoff
from pillows.transports.base import Transport
from pillows.waiting import Waiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of a batch in one transport, once every document of it is final.

    Attributes:
        refused: id -> the stored guard, for documents that the target had in this or a newer state.
        dead: id -> why it can never be written there.
    """

    refused: Mapping[str, int]
    dead: Mapping[str, str]


class FanOut:
    """Delivers batches to the transports of one tail.

    Args:
        transports: open transports, in configured order.
        pillow: the tail's key as text, for the observer.
        waiter: waits between tries.
        observer: is told of retries.
    """

    def __init__(
        self, transports: Sequence[Transport], *, pillow: str, waiter: Waiter, observer: Observer
    ) -> None:
        self._transports = transports
        self._pillow = pillow
        self._waiter = waiter
        self._observer = observer

    def deliver(self, batch: Batch) -> Mapping[str, Delivery]:
        """Delivers a batch everywhere: transport's name -> what became of it.

        Raises:
            FatalError: a transport can't go on; raised after all others have ended.
            StoppedError: a stop was asked for while a transport waited for another try.
        """
        if len(self._transports) == 1:
            only = self._transports[0]
            return {only.name: self._deliver(only, batch)}
        writers = [gevent.spawn(self._catch, transport, batch) for transport in self._transports]
        results = [writer.get() for writer in gevent.joinall(writers)]
        raise_worst([result for result in results if isinstance(result, Exception)])
        return {t.name: r for t, r in zip(self._transports, results, strict=True)}

    def _catch(self, transport: Transport, batch: Batch) -> Delivery | Exception:
        try:
            return self._deliver(transport, batch)
        except Exception as error:  # noqa: BLE001 - raised by `deliver`, once all have ended
            return error

    def _deliver(self, transport: Transport, batch: Batch) -> Delivery:
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        backoff = Backoff()
        while True:
            result = self._try(transport, batch, backoff)
            if result is None:
                continue
            refused.update(result.refused)
            dead.update(result.dead)
            if not result.retry:
                return Delivery(refused=refused, dead=dead)
            batch = batch.only(result.retry.keys())
            self._back_off(transport, backoff, RetryableError(next(iter(result.retry.values()))))

    def _try(self, transport: Transport, batch: Batch, backoff: Backoff) -> WriteResult | None:
        try:
            return transport.write(batch)
        except RetryableError as error:
            self._back_off(transport, backoff, error)
            return None

    def _back_off(self, transport: Transport, backoff: Backoff, error: RetryableError) -> None:
        delay_seconds = backoff.next(error.retry_after_seconds)
        self._observer.retry(
            self._pillow,
            where=transport.name,
            error=str(error),
            attempt=backoff.attempts,
            delay_seconds=delay_seconds,
        )
        self._waiter.wait(delay_seconds)


def raise_worst(errors: Sequence[Exception]) -> None:
    """Raises the error that asks for most: a bug before a reason to fail before a stop.

    The others are told in its notes.
    """
    if not errors:
        return
    worst = max(errors, key=_severity)
    for other in errors:
        if other is not worst:
            worst.add_note(f"At the same time: {other!r}")
    raise worst


def _severity(error: Exception) -> int:
    if isinstance(error, StoppedError):
        return 0
    return 1 if isinstance(error, PillowError) else 2
