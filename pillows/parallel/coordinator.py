"""Call a function in worker processes: tasks in, results out in any order."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, Self, cast

import gevent
import msgspec
from gevent.queue import Queue
from msgspec import Struct, field

from pillows.clock import Clock, SystemClock
from pillows.errors import FatalError, PermanentError, PillowError, RetryableError
from pillows.parallel import protocol
from pillows.parallel.functions import FunctionName, FunctionSetup
from pillows.parallel.pool import Done, Failed, PoolEvents, Result, WorkerLimits, WorkerPool
from pillows.parallel.process import Ending, Program
from pillows.parallel.protocol import to_payload
from pillows.parallel.ranges import Range, Ranges
from pillows.retry.backoff import Backoff

#: Most workers that `auto` starts.
MAX_AUTO_WORKERS = 8
#: Longest time for idle workers to end.
_END_SECONDS = 5.0


def count_workers(workers: int | Literal["auto"]) -> int:
    """Return the number of workers: `auto` means one fewer than the cores this process may use, at most 8."""
    if workers == "auto":
        return max(1, min(MAX_AUTO_WORKERS, len(os.sched_getaffinity(0)) - 1))
    return workers


class Finished(Struct, frozen=True):
    """The result of a task.

    Attributes:
        task: the values that the function was called with.
        value: the returned value; None if the function failed.
        error: the error of the last try; None if it succeeded.
    """

    task: Sequence[Any]
    value: Any = None
    error: PillowError | None = None


class _Attempt(Struct):
    task: Sequence[Any]
    payload: msgspec.Raw
    tries: int = 1
    backoff: Backoff = field(default_factory=Backoff)


class Coordinator(PoolEvents):
    """Calls a function in worker processes. A context manager.

        def count(session, begin, end): ...

        with Ranges("work") as ranges, Coordinator(count, connect=requests.Session) as coordinator:
            ranges.plan(keys)
            for range, value in coordinator.work(ranges):
                print(ranges.progress)

    A worker that dies is replaced, and its task is tried again. Use the coordinator in the main thread.

    Args:
        function: called in a worker with its connection and the values of a task; written at the top of a
            module. It returns plain values: numbers, text, bytes, lists, dicts.
        connect: called once in each worker; returns its connection, which is closed at the end if it has
            `close`. Without `connect` the function gets only the values.
        workers: number of processes; `auto` means one fewer than the number of cores, at most 8.
        max_tries: how often a task is tried, with growing pauses. After `PermanentError` it is not tried
            again; `FatalError` ends the run.
        limits: limits of each worker. By default a task may take any time.
        clock: for ages and waits.

    Raises:
        ConfigError: another process cannot import the functions.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        connect: Callable[[], Any] | None = None,
        workers: int | Literal["auto"] = "auto",
        max_tries: int = 3,
        limits: WorkerLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        setup = FunctionSetup(FunctionName.of(function), FunctionName.of(connect) if connect else None)
        self._program = Program(module="pillows.parallel.function_worker", setup=to_payload(setup))
        self._size = count_workers(workers)
        self._max_tries = max_tries
        self._limits = limits or WorkerLimits(hang_seconds=None)
        self._clock = clock or SystemClock()
        self._pool: WorkerPool | None = None
        self._attempts: dict[int, _Attempt] = {}
        self._pauses: set[gevent.Greenlet[..., None]] = set()
        self._finished: Queue[Finished | FatalError] = Queue()
        self._refusal: FatalError | None = None  # why no worker can be started
        self._numbers = 0

    def __enter__(self) -> Self:
        """Start the workers."""
        self._refusal = None
        self._pool = WorkerPool(
            self._program, self._size, limits=self._limits, clock=self._clock, events=self
        )
        self._pool.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """End the workers: at once after an error, otherwise when they are idle."""
        self._forget()
        if error is None:
            self._opened.close(_END_SECONDS)
        else:
            self._opened.kill()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return self._opened.pids

    def run(self, tasks: Iterable[Sequence[Any]]) -> Generator[Finished, None, None]:
        """Yield the results of tasks, in any order. Only a few tasks are taken in advance.

        Args:
            tasks: the values to call the function with.

        Raises:
            FatalError: a worker raised it, or workers cannot be started.
        """
        return self._run(tasks, list)

    def _run(
        self, tasks: Iterable[Sequence[Any]], to_values: Callable[[Any], list[Any]]
    ) -> Generator[Finished, None, None]:
        if self._refusal is not None:
            raise self._refusal
        todo = iter(tasks)
        try:
            while True:
                while self._opened.needs_tasks or len(self._attempts) < 2 * self._size:
                    task = next(todo, None)
                    if task is None:
                        break
                    self._numbers += 1
                    attempt = self._attempts[self._numbers] = _Attempt(task, to_payload(to_values(task)))
                    self._opened.submit(self._numbers, attempt.payload)
                if not self._attempts and self._finished.empty():
                    return
                finished = self._finished.get()
                if isinstance(finished, FatalError):
                    raise finished
                yield finished
        finally:
            self._forget()

    def work(self, ranges: Ranges) -> Iterator[tuple[Range, Any]]:
        """Run the function for every unfinished range. Yield each range with its value, once that is on disk.

        A failed range is noted in `ranges`, and the others continue.

        Args:
            ranges: the ranges; the function is called with `begin` and `end` of each.

        Raises:
            FatalError: as `run`.
        """
        finished = self._run(ranges.unfinished(), lambda each: [each.begin, each.end])
        with closing(finished):
            for each in finished:
                done = cast("Range", each.task)
                if each.error is None:
                    ranges.finish(done, each.value)
                    yield done, each.value
                else:
                    ranges.fail(done, str(each.error))

    # --- events of the pool

    def finished(self, number: int, result: Result) -> None:
        """Take a result, or try the task again after a pause."""
        attempt = self._attempts.get(number)
        if attempt is None:  # of a run that has ended
            return
        if isinstance(result, Done):
            self._settle(number, Finished(attempt.task, msgspec.msgpack.decode(result.payload)))
            return
        error = (
            result.error if isinstance(result, Failed) else PillowError(f"Its worker ended: {result.ending}.")
        )
        if isinstance(error, FatalError):
            self._finished.put(error)
        elif isinstance(error, PermanentError) or attempt.tries >= self._max_tries:
            self._settle(number, Finished(attempt.task, error=error))
        else:
            attempt.tries += 1
            again = error if isinstance(error, RetryableError) else RetryableError(str(error))
            pause = gevent.Greenlet(self._retry, number)
            pause.start_later(attempt.backoff.after(again))
            self._pauses.add(pause)
            pause.rawlink(self._pauses.discard)

    def resized(self) -> None:
        """Do nothing: `pids` shows the workers."""

    def ended(self, ending: Ending, pid: int) -> None:
        """Do nothing: the worker is replaced, and its task has a result."""

    def noted(self, note: protocol.Note) -> None:
        """Do nothing: workers that call functions send no reports."""

    def failed(self, error: FatalError) -> None:
        """End the run, and refuse further runs."""
        self._refusal = error
        self._finished.put(error)

    @property
    def _opened(self) -> WorkerPool:
        if self._pool is None:
            raise RuntimeError("Use the coordinator inside its `with` block.")
        return self._pool

    def _settle(self, number: int, finished: Finished) -> None:
        del self._attempts[number]
        self._finished.put(finished)

    def _retry(self, number: int) -> None:
        self._opened.submit(number, self._attempts[number].payload)

    def _forget(self) -> None:
        """Forget the remaining tasks of a run."""
        gevent.killall(list(self._pauses), block=False)
        self._opened.cancel_waiting()
        self._attempts.clear()
        self._finished = Queue()
