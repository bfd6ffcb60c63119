"""The loop of a tail, with worker processes between the feed and the pusher.

The changes of the feed are cut into chunks, workers filter and transform them, and the outcomes are pushed
in the order of the feed. The pusher and everything after it do not know about workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event
from msgspec import Struct

from pillows.clock import Turn
from pillows.dead_letters.dead_letter import make_dead_letter
from pillows.delivery.items import Outcome
from pillows.errors import StoppedError
from pillows.models import Change, ChangeBatch
from pillows.parallel.chunk_pool import ChunkOutcomes, ChunkPool, MakePool
from pillows.parallel.chunks import Chunk, ChunkCutter
from pillows.pillow import Pipeline, estimate_size_bytes
from pillows.retry.cancellable import TICK_SECONDS
from pillows.retry.retrier import Retrier
from pillows.user_code import confine

#: Start workers when the tail is this many changes behind: starting them takes a second.
FAR_BEHIND = 10_000
#: Most bytes of chunks that wait for an earlier one, outcomes included.
MAX_WAITING_BYTES = 64 * 2**20
#: Most unfinished chunks per worker.
CHUNKS_PER_WORKER = 2
#: After a stop, longest wait for chunks that workers have begun. The others are read again.
DRAIN_SECONDS = 5.0
#: Longest time for workers to end.
END_SECONDS = 2.0
#: Idle time after which a worker that retries dead letters ends.
RETRY_POOL_SECONDS = 10.0


class _QueuedChunk(Struct, eq=False):
    """A chunk whose outcomes are not pushed yet."""

    chunk: Chunk
    outcomes: ChunkOutcomes | None  # None: it has no changes
    made_here: list[Outcome] | None = None  # if no worker can be started

    @property
    def size_bytes(self) -> int:
        return self.chunk.size_bytes + (self.outcomes.size_bytes if self.outcomes is not None else 0)

    @property
    def is_unfinished(self) -> bool:
        return self.outcomes is not None and self.outcomes.missing > 0

    @property
    def is_cancelled(self) -> bool:
        return self.outcomes is not None and self.outcomes.cancelled


class ParallelPipeline:
    """Carries the changes of one tail with worker processes, while many are behind.

    Args:
        pipeline: notes every batch, and carries the other changes, in this process; has the pusher.
        workers: how many processes while far behind; 0 for none.
        isolate: always have a worker, so that no function of the user is ever called here.
        make_pool: starts workers.
        retrier: the tail's; waits and reports.
        on_error: called when the loop cannot continue: it ends the feed.
        on_size: called with the number of workers when it changes.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        workers: int,
        isolate: bool,
        make_pool: MakePool,
        retrier: Retrier,
        on_error: Callable[[], None],
        on_size: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._pipeline = pipeline
        self._workers = workers
        self._isolate = isolate
        self._make_pool = make_pool
        self._retrier = retrier
        self._waiter = retrier.waiter
        self._on_error = on_error
        self._on_size = on_size
        self._cutter = ChunkCutter()
        self._queue: deque[_QueuedChunk] = deque()
        #: Counts down the changes up to the head, for servers that do not report pending changes; None at the
        #: head.
        self._read: int | None = 0
        self._moved, self._arrived = Event(), Event()
        self._size = 0
        self._pool: ChunkPool | None = None
        self._retry_pool: ChunkPool | None = None
        self._open_pools: list[ChunkPool] = []
        self._retried_at = 0.0
        self._pushing: gevent.Greenlet[..., None] | None = None
        self._ending_retry_pool: gevent.Greenlet[..., None] | None = None
        self._is_refused = False
        self._error: Exception | None = None
        self._waiter.stop.rawlink(self._move)

    def carry(self, batches: Iterable[ChangeBatch], on_batch: Callable[[ChangeBatch], None]) -> None:
        """Carry changes until the feed ends.

        Args:
            batches: the feed's batches.
            on_batch: called with each batch before it is carried; a sign of life.

        Raises:
            FatalError: the tail can't continue.
            StoppedError: a stop was requested while something was retried.
        """
        turn = Turn()
        for batch in batches:
            self._raise_error()
            size = self._choose_size(batch)
            if size > self._size:
                self._change_size(size)
            if self._pool is None:
                self._pipeline.carry((batch,), on_batch)
            else:
                on_batch(batch)
                self._add(batch, self._pool)
                turn.give_way()
            if size < self._size or (self._pool is not None and self._pool.refusal is not None):
                self._change_size(size)
        self._change_size(0)

    def outcome(self, change: Change) -> Outcome:
        """Return the outcome of a dead letter's change, which is not from the feed.

        Raises:
            FatalError: the tail can't continue.
            StoppedError: a stop was requested.
        """
        while not self._waiter.stop.is_set():
            pool = self._pool or self._retry_pool or self._open_retry_pool()
            self._retried_at = self._waiter.clock.monotonic()
            outcomes = pool.submit([change], first=True)
            while outcomes.missing and not outcomes.cancelled and not self._waiter.stop.is_set():
                if pool.error is not None:
                    raise pool.error
                if pool.refusal is not None:  # it may be one that crashed workers: not here, therefore
                    return make_dead_letter(self._retrier.tail, change, "transform", pool.refusal)
                self._wait()
            if not outcomes.missing:
                return outcomes.outcome(self._retrier.tail, 0)
        raise StoppedError

    def close(self) -> None:
        """End all workers at once. May be called twice."""
        self._waiter.stop.unlink(self._move)
        for greenlet in (self._pushing, self._ending_retry_pool):
            if greenlet is not None:
                greenlet.kill()
        for pool in list(self._open_pools):
            self._end_pool(pool, 0.0)
        self._pool = self._retry_pool = None
        self._on_size(0)

    # --- workers

    def _choose_size(self, batch: ChangeBatch) -> int:
        """Return the number of workers to have after a batch."""
        # At the head, batches report neither that the head is reached nor how many changes are pending.
        self._read = None if batch.caught_up or self._read is None else self._read + len(batch.changes)
        if self._is_refused:
            return 0
        if batch.caught_up:
            return int(self._isolate)
        behind = (self._read or 0) if batch.pending is None else batch.pending
        return max(self._workers if behind > FAR_BEHIND else self._size, self._isolate)

    def _change_size(self, size: int) -> None:
        """Wait for the chunks of the current workers, end these, and start new ones."""
        if self._pool is not None:
            if not size:
                self._on_size(0)  # so that the feed brings documents again while the last chunks are pushed
            self._push_rest(self._pool)
            if self._pool.refusal is not None:
                if self._isolate:
                    raise self._pool.refusal
                self._is_refused = True
                details = {"reason": str(self._pool.refusal)}
                self._retrier.observer.warning(self._retrier.tail, event="workers.refused", details=details)
            pool, self._pool, self._size = self._pool, None, 0
            if self._pushing is not None:
                self._pushing.kill()
            self._end_pool(pool, END_SECONDS)
            self._queue.clear()
            self._raise_error()
        if size and not self._is_refused and not self._waiter.stop.is_set():
            self._size = size
            self._on_size(size)
            self._pool = self._open_pool(size)
            self._pushing = gevent.spawn(self._push_all, self._pool)

    def _open_pool(self, size: int) -> ChunkPool:
        pool = ChunkPool(self._make_pool, size, retrier=self._retrier, on_move=self._note_outcomes)
        self._open_pools.append(pool)
        return pool

    def _end_pool(self, pool: ChunkPool, seconds: float) -> None:
        pool.close(seconds)
        if pool in self._open_pools:
            self._open_pools.remove(pool)

    def _open_retry_pool(self) -> ChunkPool:
        """Start a worker for dead letters, which ends after some idle time."""
        self._retry_pool = self._open_pool(1)
        self._ending_retry_pool = gevent.spawn(self._end_retry_pool, self._retry_pool)
        return self._retry_pool

    def _end_retry_pool(self, pool: ChunkPool) -> None:
        clock = self._waiter.clock
        while pool.is_busy or clock.monotonic() - self._retried_at < RETRY_POOL_SECONDS:
            clock.wait(Event(), RETRY_POOL_SECONDS)
        self._retry_pool = None
        self._end_pool(pool, END_SECONDS)

    # --- from the feed to the workers

    def _add(self, batch: ChangeBatch, pool: ChunkPool) -> None:
        """Add a batch to the chunks, and wait while too much is in flight."""
        pending_range = self._pipeline.begin(batch)
        if pending_range is None:
            return
        for chunk in self._cutter.add(batch.changes, pending_range):
            self._start(chunk, pool)
        if pool.needs_tasks or batch.caught_up:
            self._start_rest(pool)
        while self._error is None and not self._waiter.stop.is_set() and not self._has_room():
            self._wait()

    def _start(self, chunk: Chunk, pool: ChunkPool) -> None:
        self._queue.append(_QueuedChunk(chunk, pool.submit(chunk.changes) if chunk.changes else None))
        self._arrived.set()

    def _start_rest(self, pool: ChunkPool) -> None:
        if (chunk := self._cutter.cut()) is not None:
            self._start(chunk, pool)

    def _has_room(self) -> bool:
        """Return whether more may be in flight. The limit is lower if the target is slow."""
        most = CHUNKS_PER_WORKER * self._size
        unfinished = sum(each.is_unfinished for each in self._queue)
        if unfinished >= most or (
            self._queue and not self._queue[0].is_unfinished and len(self._queue) > most
        ):
            return False
        return sum(each.size_bytes for each in self._queue) < MAX_WAITING_BYTES

    def _push_rest(self, pool: ChunkPool) -> None:
        """Wait until every chunk is pushed.

        After a stop, wait only for chunks that workers have begun; the others are read again.
        """
        self._start_rest(pool)
        clock, stop, until = self._waiter.clock, self._waiter.stop, None
        while self._queue and self._error is None:
            if stop.is_set():
                if until is None:
                    until = clock.monotonic() + DRAIN_SECONDS
                    pool.cancel_waiting()
                if self._queue[0].is_cancelled or clock.monotonic() >= until:
                    return
            self._wait()

    # --- from the workers to the pusher

    def _push_all(self, pool: ChunkPool) -> None:
        """Push outcomes in the order of the feed, as they arrive."""
        try:
            while True:
                self._arrived.clear()
                while self._queue and self._is_ready(self._queue[0], pool):
                    self._push(self._queue[0])
                    self._queue.popleft()
                    self._move()
                self._waiter.clock.wait(self._arrived, TICK_SECONDS)
        except BaseException as raised:  # noqa: BLE001 - raised in `carry`
            self._error = confine(raised)
            self._on_error()
            self._move()

    def _is_ready(self, first: _QueuedChunk, pool: ChunkPool) -> bool:
        """Return whether a chunk has all outcomes. If no worker can be started, process it in this process.

        Raises:
            FatalError: the tail can't continue.
        """
        outcomes = first.outcomes
        if outcomes is None or not outcomes.missing:
            return True
        if pool.error is not None:
            raise pool.error
        if pool.refusal is None or outcomes.cancelled:
            return False
        if self._isolate:
            raise pool.refusal
        turn, first.made_here = Turn(), []
        for change in outcomes.changes:
            first.made_here.append(self._pipeline.outcome(change))
            turn.give_way()
        outcomes.missing = 0
        return True

    def _push(self, each: _QueuedChunk) -> None:
        turn, push, chunk, outcomes = Turn(), self._pipeline.pusher.push, each.chunk, each.outcomes
        if outcomes is not None:
            observer, tail = self._retrier.observer, self._retrier.tail
            for index, change in enumerate(outcomes.changes):
                outcome = outcomes.outcome(tail, index) if each.made_here is None else each.made_here[index]
                push((chunk.ranges[index], outcome), estimate_size_bytes(change, outcome))
                turn.give_way()
            observer.change(tail, count=len(outcomes.changes), kept=outcomes.kept, filtered=outcomes.filtered)
            if outcomes.took_seconds:  # at least some of them were carried by a worker
                self._cutter.note(len(outcomes.changes), outcomes.took_seconds)
            for stage, seconds in outcomes.seconds.items():
                observer.stage(tail, stage=stage, seconds=seconds)
        for pending_range in chunk.ranges[len(chunk.changes) :]:
            push((pending_range, None), 0)

    # --- waits

    def _note_outcomes(self) -> None:
        """Note that outcomes have arrived; give idle workers more to do."""
        if self._pool is not None and self._pool.needs_tasks and self._pool.refusal is None:
            self._start_rest(self._pool)
        self._arrived.set()
        self._move()

    def _move(self, _: object = None) -> None:
        self._moved.set()

    def _wait(self) -> None:
        self._moved.clear()
        self._waiter.clock.wait(self._moved, TICK_SECONDS)
        self._waiter.tick()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
