"""Run chunks in a pool of workers, and recover from the deaths of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gevent
import msgspec
from msgspec import Struct, field

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import make_dead_letter
from pillows.delivery.items import Outcome
from pillows.errors import FatalError, PermanentError, PillowError, RetryableError, StoppedError
from pillows.models import Change
from pillows.parallel import protocol
from pillows.parallel.deaths import Deaths, Verdict
from pillows.parallel.outcomes import Sent, SentDeadLetter, decode_outcomes, encode_changes, to_outcome
from pillows.parallel.pool import Done, Failed, PoolEvents, Result, WorkerPool
from pillows.parallel.process import Cause, Ending
from pillows.retry.backoff import Backoff
from pillows.retry.retrier import Retrier

#: Most deaths of workers in a row without a finished task. A single bad document causes at most 15.
MAX_DEATHS_IN_A_ROW = 50

#: Starts workers, given their number and the receiver of their events.
MakePool = Callable[[int, PoolEvents], WorkerPool]


class ChunkOutcomes(Struct, eq=False):
    """Changes that workers process, and their outcomes.

    Attributes:
        changes: the changes.
        sent: the outcome of each change, as sent by a worker; complete once `missing` is 0.
        size_bytes: the size of the outcomes, approximately.
        missing: how many outcomes are missing.
        kept, filtered, seconds, took_seconds: as in `Outcomes`.
        cancelled: whether some outcomes will never come, because of a stop.
    """

    changes: Sequence[Change]
    sent: list[Sent]
    missing: int
    size_bytes: int = 0
    kept: int = 0
    filtered: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    took_seconds: float = 0.0
    cancelled: bool = False

    def outcome(self, tail: TailKey, index: int) -> Outcome:
        """Return the outcome of the change at an index. Each call decodes it again."""
        return to_outcome(tail, self.changes[index], self.sent[index])


class _Task(Struct, eq=False):
    """The changes that one worker gets as one task."""

    outcomes: ChunkOutcomes
    begin: int
    end: int
    deaths: Deaths = field(default_factory=Deaths)

    @property
    def changes(self) -> Sequence[Change]:
        return self.outcomes.changes[self.begin : self.end]


class ChunkPool(PoolEvents):
    """A pool of workers for one tail.

    Args:
        make_pool: starts the workers.
        size: how many.
        retrier: the tail's; waits and reports.
        on_move: called when outcomes have arrived, or when `error` or `refusal` was set.

    Attributes:
        error: why the tail cannot go on; None while it can.
        refusal: why no worker can be started; None while that is possible.
    """

    def __init__(
        self, make_pool: MakePool, size: int, *, retrier: Retrier, on_move: Callable[[], None]
    ) -> None:
        self.error: Exception | None = None
        self.refusal: FatalError | None = None
        self._retrier = retrier
        self._on_move = on_move
        self._tasks: dict[int, _Task] = {}
        self._numbers = 0
        self._deaths = 0
        self._backoff = Backoff()
        self._retries: set[gevent.Greenlet[..., None]] = set()
        self._pool = make_pool(size, self)
        self._starting = gevent.spawn(self._pool.start)

    @property
    def needs_tasks(self) -> bool:
        """Whether a worker is idle, or soon will be."""
        return self._pool.needs_tasks

    @property
    def is_busy(self) -> bool:
        """Whether outcomes are missing."""
        return bool(self._tasks) and self.refusal is None

    def submit(self, changes: Sequence[Change], *, first: bool = False) -> ChunkOutcomes:
        """Queue changes for the workers; return the object that will receive their outcomes.

        Args:
            changes: the changes; at least one.
            first: whether they go before the waiting ones.
        """
        outcomes = ChunkOutcomes(changes, [None] * len(changes), len(changes))
        self._submit(_Task(outcomes, 0, len(changes)), first=first)
        return outcomes

    def cancel_waiting(self) -> None:
        """Cancel the tasks that no worker has."""
        for number in self._pool.cancel_waiting():
            self._tasks.pop(number).outcomes.cancelled = True

    def close(self, seconds: float) -> None:
        """End the workers after their current tasks; kill those that take longer than `seconds`.

        Cancel the remaining tasks.
        """
        gevent.killall([self._starting, *self._retries])
        self._pool.close(seconds)
        for task in self._tasks.values():
            task.outcomes.cancelled = True
        self._tasks.clear()
        self._on_move()

    # --- events of the pool

    def finished(self, number: int, result: Result) -> None:
        """Store the outcomes of a task, or handle its failure."""
        task = self._tasks.pop(number, None)
        if task is None:
            return
        if isinstance(result, Done):
            self._take(task, result.payload)
        elif isinstance(result, Failed):
            self._retry_or_fail(task, result.error)
        elif result.ending.cause is Cause.ENDED:
            task.outcomes.cancelled = True
        else:
            self._judge(task, result.ending)
        self._on_move()

    def resized(self) -> None:
        """Report the number of workers."""
        self._retrier.observer.workers(self._retrier.tail, count=self._pool.size)

    def ended(self, ending: Ending, pid: int) -> None:
        """Report the end of a worker."""
        self._retrier.observer.worker_ended(self._retrier.tail, pid=pid, cause=ending.cause, how=str(ending))

    def noted(self, note: protocol.Note) -> None:
        """Pass on a report of a worker."""
        self._retrier.observer.warning(self._retrier.tail, event=note.event, details=note.details)

    def failed(self, error: FatalError) -> None:
        """Note that no worker can be started."""
        self.refusal = error
        self._on_move()

    # --- outcomes

    def _submit(self, task: _Task, *, first: bool) -> None:
        self._numbers += 1
        self._tasks[self._numbers] = task
        self._pool.submit(self._numbers, encode_changes(task.changes), first=first)

    def _take(self, task: _Task, payload: msgspec.Raw) -> None:
        self._deaths = 0
        if self._backoff.attempts:
            self._retrier.on_trouble(self._backoff, "")
            self._backoff = Backoff()
        outcomes, count = task.outcomes, task.end - task.begin
        try:
            found = decode_outcomes(payload)
        except msgspec.DecodeError as error:
            self._fail(PillowError(f"The outcomes of a worker cannot be read: {error}."))
            return
        if len(found.outcomes) != count:
            self._fail(PillowError(f"A worker has sent {len(found.outcomes)} outcomes of {count} changes."))
            return
        outcomes.sent[task.begin : task.end] = found.outcomes
        outcomes.size_bytes += len(payload)
        outcomes.kept += found.kept
        outcomes.filtered += found.filtered
        outcomes.took_seconds += found.took_seconds
        for stage, seconds in found.seconds.items():
            outcomes.seconds[stage] = outcomes.seconds.get(stage, 0.0) + seconds
        outcomes.missing -= count

    def _retry_or_fail(self, task: _Task, error: PillowError) -> None:
        if not isinstance(error, RetryableError):
            self._fail(error)
            return
        retry = gevent.spawn(self._retry, task, error)
        self._retries.add(retry)
        retry.rawlink(self._retries.discard)

    def _retry(self, task: _Task, error: RetryableError) -> None:
        """Run a task again after a pause, because the source can't be reached."""
        delay_seconds = self._backoff.after(error)
        retrier = self._retrier
        retrier.observer.retry(
            retrier.tail,
            where="source",
            error=str(error),
            attempt=self._backoff.attempts,
            delay_seconds=delay_seconds,
        )
        retrier.on_trouble(self._backoff, f"source: {error}")
        try:
            retrier.waiter.wait(delay_seconds)
        except StoppedError:
            task.outcomes.cancelled = True
            self._on_move()
        else:
            self._submit(task, first=True)

    def _judge(self, task: _Task, ending: Ending) -> None:
        """Handle the death of a worker."""
        self._deaths += 1
        count = task.end - task.begin
        verdict = task.deaths.judge(ending.cause, count)
        if verdict is Verdict.STOP or self._deaths >= MAX_DEATHS_IN_A_ROW:
            self._stop_tail(task, ending)
        elif verdict is Verdict.AGAIN:
            self._submit(task, first=True)
        elif verdict is Verdict.HALVE:
            middle = task.begin + count // 2
            self._submit(_Task(task.outcomes, middle, task.end, Deaths(halved=True)), first=True)
            self._submit(_Task(task.outcomes, task.begin, middle, Deaths(halved=True)), first=True)
        else:
            error = PermanentError(f"It killed the worker: {ending}.")
            dead = make_dead_letter(self._retrier.tail, task.changes[0], "transform", error)
            task.outcomes.sent[task.begin] = SentDeadLetter.of(dead)
            task.outcomes.missing -= 1

    def _stop_tail(self, task: _Task, ending: Ending) -> None:
        changes = task.changes
        what = f"the document {changes[0].id!r}" if len(changes) == 1 else f"{len(changes)} documents"
        self._fail(
            FatalError(
                f"Worker processes end again and again, the last one at work on {what}: {ending}.",
                remedy="find out what kills them: the kernel does, if memory is short (see `dmesg`)",
            )
        )

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
