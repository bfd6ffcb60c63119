"""Pushes documents in bulk: fast, bounded, in order, and never silently lost. Usable on its own.

    with BulkPusher("http://admin:secret@127.0.0.1:5984/people") as pusher:
        for person in people:
            pusher.push(person)
    print(pusher.counts)

A document is serialised when it is pushed, so what the caller does with it afterwards changes nothing,
and one that has no JSON form is refused at once. `push` waits while so much is under way that another
batch may not wait, so memory is bounded by (jobsbuffersizemax + 2 x max_in_flight) batches.

Bulks are written in greenlets where `gevent.monkey` has patched all, else in threads; in both, any
number of them may push. A function that writes, and the observer, are called from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import Any, Self

from checkpoints import TailKey
from pillows.clock import Clock, SystemClock
from pillows.delivery.batcher import BatchPolicy
from pillows.delivery.partitioned_pusher import PartitionedPusher
from pillows.delivery.pusher import Pusher
from pillows.errors import PillowError, RetryableError, StoppedError
from pillows.observer import Observer
from pillows.retry.backoff import Backoff
from pillows.standalone.backends import background
from pillows.standalone.bulk_couch import CouchBulkWriter
from pillows.standalone.bulk_models import BulkDocument, BulkOutcome

#: So many conflicts and failures are remembered by id; beyond that they are only counted.
MAX_REMEMBERED = 10_000


_Write = Callable[[Sequence[BulkDocument]], BulkOutcome | None]


class PusherClosed(PillowError):
    """The pusher is closed and takes no more documents."""


@dataclass(slots=True, kw_only=True)
class BulkCounts:
    """What became of documents.

    Attributes:
        ok: how many were written.
        conflict: how many were not, because the target has another revision.
        failed: how many can never be written.
        conflicts: id -> why, of up to `MAX_REMEMBERED`.
        failures: the same.
    """

    ok: int = 0
    conflict: int = 0
    failed: int = 0
    conflicts: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, documents: int, outcome: BulkOutcome) -> None:
        """Counts a bulk of so many documents, by its outcome's counts."""
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
        target: URL of a database, with user and password if need be; or a function that writes a batch
            and returns what became of it (None: all written), raising `RetryableError` for what may
            succeed later.
        threshold: documents in a bulk.
        jobsbuffersizemax: bulks that may wait until one in flight is done.
        max_bytes: bytes in a bulk; a single larger document goes alone.
        max_age_seconds: a bulk that is not full is sent after so long.
        max_in_flight: bulks in flight. 1 keeps the order of pushes. With more, the documents of one
            id keep theirs.
        max_tries: how often a bulk is tried before the error is raised to the caller; None: for ever.
        on_conflict: `skip` (listed in the counts), `overwrite` with the revision that is there, or
            `fail`. Of databases only.
        create: create a missing database. Of databases only.
        clock: for waits.
        observer: is told of every bulk and every retry.
        name: what the observer is told as the pillow.
    """

    def __init__(
        self,
        target: str | _Write,
        *,
        threshold: int = 1000,
        jobsbuffersizemax: int = 10,
        max_bytes: int = 5 * 2**20,
        max_age_seconds: float = 1.0,
        max_in_flight: int = 1,
        max_tries: int | None = 8,
        on_conflict: str = "skip",
        create: bool = False,
        clock: Clock | None = None,
        observer: Observer | None = None,
        name: str = "bulk",
    ) -> None:
        if min(threshold, max_bytes, max_in_flight) < 1 or jobsbuffersizemax < 0:
            raise ValueError("threshold, max_bytes and max_in_flight are at least 1")
        self.counts = BulkCounts()
        self._clock = clock or SystemClock()
        self._observer = observer or Observer()
        self._tail = TailKey(name, "")
        self._max_tries = max_tries
        self._background = background()
        self._couches: list[CouchBulkWriter] = []
        self._closed = False
        self._stop = self._background.event()
        self._under_way = 0
        self._idle = self._background.event()
        self._error: Exception | None = None
        policy = BatchPolicy(
            max_docs=threshold,
            max_bytes=max_bytes,
            linger_seconds=max_age_seconds,
            queue=math.ceil(jobsbuffersizemax / max_in_flight),
        )

        def lane() -> Pusher[BulkDocument]:
            write = partial(self._write_bulk, self._writer(target, on_conflict, create))
            return Pusher(write, policy, self._clock, background=self._background)

        with self._background.turn():
            self._lanes = PartitionedPusher(lane, max_in_flight, attrgetter("id"))

    @property
    def waiting(self) -> int:
        """How many documents were pushed and are not final yet."""
        return self._under_way

    def push(self, document: Mapping[str, Any] | bytes) -> None:
        """Pushes a document; waits while too much is under way.

        Args:
            document: what `json` can hold; bytes are taken as the JSON text of a document.

        Raises:
            TypeError, ValueError: it has no JSON form; nothing else is affected.
            PusherClosed: `finish` was called.
            The error that a bulk ended with: what was under way is not written, or not known to be.
        """
        made = BulkDocument.of(document)
        with self._background.turn():
            if self._closed:
                raise PusherClosed
            self._began()
            try:
                self._lanes.push(made, len(made.body))
            except StoppedError:
                self._ended(1)
                raise PusherClosed from None  # while this waited
            except BaseException:
                self._ended(1)
                raise

    def flush(self) -> BulkCounts:
        """Waits until everything pushed is final; returns the counts of all so far.

        Raises:
            The error that a bulk ended with.
        """
        with self._background.turn():
            while self._under_way and self._error is None:
                self._lanes.flush()
                self._clock.wait(self._idle, 0.05)
        if self._error is not None:
            raise self._error
        return self.counts

    def finish(self) -> BulkCounts:
        """As `flush`, and takes no more documents. May be called twice.

        Raises:
            The error that a bulk ended with.
        """
        try:
            return self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Ends at once: what is under way may or may not be written. May be called twice."""
        with self._background.turn():
            self._closed = True
            self._stop.set()
            self._lanes.kill()
        for couch in self._couches:
            couch.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes; after an error, closes at once."""
        if kind is None:
            self.finish()
        else:
            self.close()

    def _began(self) -> None:
        self._under_way += 1
        self._idle.clear()

    def _ended(self, count: int) -> None:
        self._under_way -= count
        if not self._under_way:
            self._idle.set()

    def _writer(self, target: str | _Write, on_conflict: str, create: bool) -> _Write:
        """What writes for one lane: each has connections of its own, as threads must."""
        if not isinstance(target, str):
            return target
        self._couches.append(CouchBulkWriter(target, on_conflict, create))
        return self._couches[-1].write

    def _write_bulk(self, write: _Write, documents: list[BulkDocument]) -> None:
        began = self._clock.monotonic()
        try:
            outcome = (self._until_done(write, documents) or BulkOutcome()).counted(documents)
        except Exception as error:
            self._error = self._error or error
            self._idle.set()
            raise
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
                with self._background.away():
                    return write(documents)
            except RetryableError as error:
                delay_seconds = backoff.next(at_least_seconds=error.retry_after_seconds)
                if self._max_tries is not None and backoff.attempts >= self._max_tries:
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
            except SystemExit as error:  # would end a thread without a word
                raise RuntimeError(repr(error)) from error


__all__ = ["BulkCounts", "BulkDocument", "BulkOutcome", "BulkPusher", "PusherClosed"]
