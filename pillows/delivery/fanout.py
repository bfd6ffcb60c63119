"""Write one batch to all transports at the same time.

Each transport has its own greenlet, which retries until every document of the batch is settled there. Only
the failing transport is retried: writing to the others again would create duplicates in append-only targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gevent
from gevent.lock import BoundedSemaphore

from pillows.errors import PartlyWrittenError, PillowError, RetryableError, StoppedError
from pillows.models import Batch, TransportResult, WriteResult, write_version
from pillows.retry.retrier import Retrier
from pillows.transports.base import Transport
from pillows.user_code import confine


class FanOut:
    """Delivers batches to the transports of one tail.

    Args:
        transports: open transports, in configured order.
        retrier: waits between attempts.
        timeouts_seconds: transport name -> longest write. A longer one is abandoned and retried, which is
            safe because writes are idempotent. A missing name: the transport's own timeouts apply.
        max_parallel: most writes at the same time; by default one for each transport.
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
        self._in_flight = dict.fromkeys((transport.name for transport in transports), 0)

    def deliver(self, batch: Batch) -> Mapping[str, TransportResult]:
        """Deliver a batch to every transport; return transport name -> result.

        Raises:
            FatalError: a transport cannot continue; raised after all others have ended.
            StoppedError: a stop was requested while a transport waited for a retry.
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
        self._count_in_flight(transport, 1)
        try:
            return self._deliver_counted(transport, batch)
        finally:
            self._count_in_flight(transport, -1)

    def _count_in_flight(self, transport: Transport, more: int) -> None:
        self._in_flight[transport.name] += more
        batches = self._in_flight[transport.name]
        self._retrier.observer.in_flight(self._retrier.tail, transport=transport.name, batches=batches)

    def _deliver_counted(self, transport: Transport, batch: Batch) -> TransportResult:
        began = self._clock.monotonic()
        rest = batch
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}

        def write_rest() -> None:
            nonlocal rest
            result = self._write(transport, rest)
            refused.update(result.refused)
            dead.update(result.dead)
            if result.retry:
                is_partly_written = len(result.retry) < len(rest.documents)
                rest = rest.only(result.retry)
                reason = next(iter(result.retry.values()))
                raise PartlyWrittenError(reason) if is_partly_written else RetryableError(reason)

        self._retrier.retry_write(transport.name, write_rest)
        # Only a batch that was applied whole brings its checkpoint along; `only` leaves that out.
        committed = None if refused or dead else rest.checkpoint
        settled = TransportResult(refused=refused, dead=dead, committed=committed)
        self._report(transport, batch, settled, self._clock.monotonic() - began)
        return settled

    def _report(self, transport: Transport, batch: Batch, result: TransportResult, seconds: float) -> None:
        self._retrier.observer.write(
            self._retrier.tail,
            transport=transport.name,
            documents=count_results(batch, result),
            size_bytes=sum(document.size_bytes for document in batch.documents),
            seconds=seconds,
        )

    def _write(self, transport: Transport, batch: Batch) -> WriteResult:
        seconds = self._timeouts_seconds.get(transport.name)
        timeout = gevent.Timeout(seconds)
        with self._turns:
            try:
                with timeout:
                    return transport.write(batch)
            except gevent.Timeout as expired:
                if expired is not timeout:
                    raise
        raise RetryableError(f"No answer within {seconds:g} s; whether it was written is not known.")


def count_results(batch: Batch, result: TransportResult) -> Mapping[str, int]:
    """Return the number of a batch's documents with each result in one transport: see `Observer.write`."""
    dead, refused = len(result.dead), len(result.refused)
    equal = sum(
        result.refused.get(each.id) == write_version(batch.epoch, each.leaf_version)
        for each in (batch.documents if refused else ())
    )
    applied = len(batch.documents) - refused - dead
    return {"applied": applied, "equal": equal, "stale": refused - equal, "dead": dead}


def find_divergence(results: Mapping[str, TransportResult]) -> dict[str, list[str]]:
    """Return the documents on which the transports disagree: id -> the transports that can never write it.

    "Applied" in one transport and "refused as not newer" in another count as agreement.
    """
    dead: dict[str, list[str]] = {}
    for name, delivery in results.items():
        for id in delivery.dead:
            dead.setdefault(id, []).append(name)
    return {id: names for id, names in dead.items() if len(names) < len(results)}


def raise_most_severe(errors: Sequence[Exception]) -> None:
    """Raise the most severe error, with the others in its notes. Order: bug, fatal error, stop."""
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
