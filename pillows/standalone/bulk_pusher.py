"""Pushes documents in bulk: fast, bounded, in order, and never silently lost. Usable on its own.

    with BulkPusher("http://admin:secret@127.0.0.1:5984/people") as pusher:
        for person in people:
            pusher.push(person)
    print(pusher.counts)

A document is encoded when it is pushed, so later changes to it have no effect, and one without a JSON
form is refused at once. `push` waits while as many batches wait as may, so memory is bounded by
(jobsbuffersizemax + 2 x max_in_flight) batches.

Batches are written in greenlets if `gevent.monkey` has patched everything, else in threads; any number
of either may push. The function that writes, and the observer, are called from there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import Any, Self

from msgspec import Struct, field

from checkpoints import TailKey
from checkpoints.files.fork_safety import register_for_fork
from pillows.clock import Clock, SystemClock
from pillows.delivery.backends import get_backend, is_patched
from pillows.delivery.batcher import BatchOptions
from pillows.delivery.partitioned_pusher import PartitionedPusher
from pillows.delivery.pusher import Pusher
from pillows.errors import PillowError, RetryableError, StoppedError
from pillows.observer import Observer
from pillows.retry.backoff import Backoff
from pillows.standalone.bulk_couch import CouchBulkWriter
from pillows.standalone.bulk_models import BulkDocument, BulkOptions, BulkOutcome

#: Conflicts and failures that are remembered by id; more are only counted.
MAX_REMEMBERED = 10_000


_Write = Callable[[Sequence[BulkDocument]], BulkOutcome | None]


class PusherClosed(PillowError):
    """The pusher is closed and takes no more documents."""


class BulkCounts(Struct, kw_only=True):
    """The outcome of documents.

    Attributes:
        ok: how many were written.
        conflict: how many were not written, because the target holds another revision.
        failed: how many can never be written.
        conflicts: id -> reason, of up to `MAX_REMEMBERED`.
        failures: the same.
    """

    ok: int = 0
    conflict: int = 0
    failed: int = 0
    conflicts: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, documents: int, outcome: BulkOutcome) -> None:
        """Count a batch of documents by its outcome."""
        conflict, failed = outcome.conflict or 0, outcome.failed or 0
        self.conflict += conflict
        self.failed += failed
        self.ok += documents - conflict - failed
        for known, found in ((self.conflicts, outcome.conflicts), (self.failures, outcome.failures)):
            for id in found:
                if len(known) < MAX_REMEMBERED:
                    known[id] = found[id]


class BulkPusher:
    """Pushes documents to a CouchDB database, or to whatever a function writes to.

    Args:
        target: URL of a database, with user and password if need be; or a function that writes a batch and
            returns its outcome (None: all written). It raises `RetryableError` if a later attempt may
            succeed.
        options: how the documents are pushed.
        clock: for waits.
        observer: receives every bulk and every retry.
        name: the pillow's name for the observer.
    """

    def __init__(
        self,
        target: str | _Write,
        options: BulkOptions | None = None,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
        name: str = "bulk",
    ) -> None:
        self._options = options = options or BulkOptions()
        self.counts = BulkCounts()
        self._clock = clock or SystemClock()
        self._observer = observer or Observer()
        self._tail = TailKey(name, "")
        self._backend = get_backend()
        self._couches: list[CouchBulkWriter] = []
        self._closed = False
        self._stop = self._backend.event()
        self._under_way = 0
        self._idle = self._backend.event()
        self._error: BaseException | None = None
        self._pid = os.getpid()
        # Without validation: the limits of a configured batch are not those of a program.
        batch = BatchOptions.model_construct(
            max_docs=options.threshold, max_bytes=options.max_bytes, linger=options.max_age_seconds
        )
        max_queued = math.ceil(options.jobsbuffersizemax / options.max_in_flight)

        def make_pusher() -> Pusher[BulkDocument]:
            write = partial(self._write_bulk, self._make_writer(target))
            return Pusher(write, batch, self._clock, backend=self._backend, max_queued=max_queued)

        with self._backend.lock():
            self._pushers = PartitionedPusher(make_pusher, options.max_in_flight, attrgetter("id"))
        register_for_fork(self)

    @property
    def waiting(self) -> int:
        """The number of documents that were pushed and are not final yet."""
        return self._under_way

    def push(self, document: Mapping[str, Any] | bytes) -> None:
        """Push a document; wait while too many are in flight.

        Args:
            document: a JSON object; bytes are the JSON text of a document.

        Raises:
            TypeError, ValueError: it has no JSON form; nothing else is affected.
            PusherClosed: `finish` or `close` was called, or the pusher belongs to another process.
            The error that a batch ended with: documents in flight may not be written.
        """
        made = BulkDocument.of(document)
        self._ensure_own()
        with self._backend.lock():
            self._ensure_open()
            self._began()
            try:
                self._pushers.push(made, len(made.body))
            except StoppedError:  # while this waited
                self._ended(1)
                self._ensure_open()
                raise
            except BaseException:
                self._ended(1)
                raise

    def flush(self) -> BulkCounts:
        """Wait until everything pushed is final; return the counts of all so far.

        Raises:
            The error that a bulk ended with.
            PusherClosed: `close` was called before everything was final, or the pusher belongs to another
                process.
        """
        self._ensure_own()
        with self._backend.lock():
            while self._under_way and self._error is None and not self._closed:
                self._pushers.flush()
                self._clock.wait(self._idle, 0.05)
            if self._under_way or self._error is not None:
                self._ensure_open()
        return self.counts

    def finish(self) -> BulkCounts:
        """Flush, and accept no more documents. May be called twice.

        Raises:
            The error that a bulk ended with.
        """
        try:
            return self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """End at once: documents in flight may or may not be written. May be called twice.

        In a forked child it does nothing: the documents are the parent's.
        """
        if self._pid != os.getpid():
            return
        with self._backend.lock():
            self._closed = True
            self._stop.set()
            self._idle.set()
            self._pushers.kill()
        for couch in self._couches:
            couch.close()

    def __enter__(self) -> Self:
        """Return the pusher."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish; after an error, close at once."""
        if kind is None:
            self.finish()
        else:
            self.close()

    def abandon(self) -> None:
        """End the greenlets, in a forked child: the documents are the parent's. Threads are not there."""
        if is_patched():
            self._pushers.kill(block=False)

    def _ensure_own(self) -> None:
        if self._pid != os.getpid():
            raise PusherClosed(
                f"the pusher belongs to process {self._pid}, from which this one was forked: make one here"
            )

    def _ensure_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise PusherClosed

    def _began(self) -> None:
        self._under_way += 1
        self._idle.clear()

    def _ended(self, count: int) -> None:
        self._under_way -= count
        if not self._under_way:
            self._idle.set()

    def _make_writer(self, target: str | _Write) -> _Write:
        """Return the writer of one partition: each has its own connections, as threads must."""
        if not isinstance(target, str):
            return target
        self._couches.append(CouchBulkWriter(target, self._options.on_conflict, self._options.create))
        return self._couches[-1].write

    def _write_bulk(self, write: _Write, documents: list[BulkDocument]) -> None:
        began = self._clock.monotonic()
        try:
            outcome = (self._until_done(write, documents) or BulkOutcome()).with_counts(documents)
        except BaseException as error:
            if not self._closed and self._pid == os.getpid():
                self._error = self._error or error
            self._idle.set()
            raise StoppedError from error  # whoever pushes or flushes gets the error itself
        self.counts.add(len(documents), outcome)
        self._observer.batch(
            self._tail,
            documents=len(documents),
            refused=outcome.conflict or 0,
            dead=outcome.failed or 0,
            seconds=self._clock.monotonic() - began,
        )
        self._ended(len(documents))

    def _until_done(self, write: _Write, documents: Sequence[BulkDocument]) -> BulkOutcome | None:
        backoff = Backoff()
        while True:
            try:
                with self._backend.unlocked():
                    return write(documents)
            except RetryableError as error:
                delay_seconds = backoff.next(at_least_seconds=error.retry_after_seconds)
                max_tries = self._options.max_tries
                if max_tries is not None and backoff.attempts >= max_tries:
                    raise
                self._observer.retry(
                    self._tail,
                    where="target",
                    error=str(error),
                    attempt=backoff.attempts,
                    delay_seconds=delay_seconds,
                )
                if self._clock.wait(self._stop, delay_seconds):
                    raise
            except (Exception, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise RuntimeError(repr(error)) from error


__all__ = ["BulkCounts", "BulkDocument", "BulkOptions", "BulkOutcome", "BulkPusher", "PusherClosed"]
