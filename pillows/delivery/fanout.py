"""One batch to all transports at once.

Every transport gets the batch in a greenlet of its own and keeps trying until each document is
final there; all results are awaited. A failing transport is retried alone: writing again to the
good ones would turn one bad output into duplicates in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import gevent
from gevent.lock import BoundedSemaphore

from pillows.errors import PillowError, RetryableError, StoppedError
from pillows.models import Batch, TransportResult, WriteResult
from pillows.retry.backoff import Backoff
from pillows.retry.retrier import Retrier
from pillows.transports.base import Transport
from pillows.user_code import confine


class FanOut:
    """Delivers batches to the transports of one tail.

    Args:
        transports: open transports, in configured order.
        retrier: backs off between tries.
        timeouts_seconds: by a transport's name: a write that takes longer is abandoned, as if it was
            killed: its result is not known, so it is tried again, which is idempotent. Where none is
            given the transport's own timeouts do.
        max_parallel: so many write at once; all of them unless given.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        retrier: Retrier,
        *,
        timeouts_seconds: Mapping[str, float] | None = None,
        max_parallel: int | None = None,
    ) -> None:
        self._transports = transports
        self._retrier = retrier
        self._clock = retrier.waiter.clock
        self._timeouts_seconds = timeouts_seconds or {}
        self._turns = BoundedSemaphore(max_parallel or max(1, len(transports)))

    def deliver(self, batch: Batch) -> Mapping[str, TransportResult]:
        """Deliver a batch to every transport; return the result of each by its name.

        Raises:
            FatalError: a transport can't go on; raised after all others have ended.
            StoppedError: a stop was asked for while a transport waited for another try.
        """
        if len(self._transports) == 1:
            only = self._transports[0]
            return {only.name: self._deliver(only, batch)}
        writers = [gevent.spawn(self._catch, transport, batch) for transport in self._transports]
        try:
            gevent.joinall(writers)
        finally:
            gevent.killall(writers)  # of a tail that is killed none may write on
        results = [writer.get() for writer in writers]
        raise_most_severe([result for result in results if isinstance(result, Exception)])
        named = zip(self._transports, results, strict=True)
        return {t.name: result for t, result in named if isinstance(result, TransportResult)}

    def _catch(self, transport: Transport, batch: Batch) -> TransportResult | Exception:
        try:
            return self._deliver(transport, batch)
        except BaseException as error:  # noqa: BLE001 - raised by `deliver`, once all have ended
            return confine(error)

    def _deliver(self, transport: Transport, batch: Batch) -> TransportResult:
        began, whole = self._clock.monotonic(), batch
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        backoff = Backoff()
        while True:
            result = self._retrier.retry_write(
                transport.name, partial(self._write, transport, batch), backoff
            )
            refused.update(result.refused)
            dead.update(result.dead)
            if not result.retry:
                self._retrier.end(backoff)
                break
            if len(result.retry) < len(batch.documents):
                backoff.reset()
            batch = batch.only(result.retry)
            self._retrier.wait(transport.name, RetryableError(next(iter(result.retry.values()))), backoff)
        self._report(transport, whole, self._clock.monotonic() - began)
        # Only a batch that was applied whole brings its checkpoint along; `only` leaves that out.
        committed = None if refused or dead else batch.checkpoint
        return TransportResult(refused=refused, dead=dead, committed=committed)

    def _report(self, transport: Transport, batch: Batch, seconds: float) -> None:
        self._retrier.observer.write(
            self._retrier.tail,
            transport=transport.name,
            documents=len(batch.documents),
            size_bytes=sum(document.size_bytes for document in batch.documents),
            seconds=seconds,
        )

    def _write(self, transport: Transport, batch: Batch) -> WriteResult:
        with self._turns:
            seconds = self._timeouts_seconds.get(transport.name)
            if seconds is None:
                return transport.write(batch)
            late = RetryableError(f"No answer within {seconds:g} s; whether it was written is not known.")
            with gevent.Timeout(seconds, late):
                return transport.write(batch)


def find_divergence(results: Mapping[str, TransportResult]) -> dict[str, list[str]]:
    """Return the documents on which the transports disagree: id -> those that can never write it.

    What was applied in one and refused as not newer in another agrees.
    """
    dead: dict[str, list[str]] = {}
    for name, delivery in results.items():
        for id in delivery.dead:
            dead.setdefault(id, []).append(name)
    return {id: names for id, names in dead.items() if len(names) < len(results)}


def raise_most_severe(errors: Sequence[Exception]) -> None:
    """Raise the most severe error: a bug before a reason to fail before a stop.

    Its notes name the others.
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
