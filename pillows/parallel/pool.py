"""A pool of worker processes: gives them tasks, collects results, and replaces those that die."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque

import gevent
import msgspec
from msgspec import Struct

from pillows.clock import Clock
from pillows.errors import FatalError, PillowError
from pillows.parallel import protocol
from pillows.parallel.memory import choose_task_bytes, find_available_bytes
from pillows.parallel.process import Cause, Ending, Program, WorkerProcess

#: Most processes in a row that may fail before they are ready, and that may be killed from outside.
MAX_FAILED_STARTS = 5
MAX_KILLED_STARTS = 100
#: Longest time for a worker to become ready: it imports a user's modules.
START_SECONDS = 60.0
#: A killed process ends at once, unless the kernel holds it, for example in a read from a lost disk.
_KILL_SECONDS = 5.0
#: Interval at which the memory of the workers is read, which takes 20 us. A worker's own limit does not count
#: shared maps, for example, so it is killed here: the kernel would not name the document.
_WATCH_SECONDS = 0.1
#: Memory of a worker during a task, as a multiple of `memory_bytes`.
_PEAK = 2
_MORE_MEMORY = (
    "raise `load.worker_memory` (of a `Coordinator`: `WorkerLimits.memory_bytes`), or let the modules of the "
    "functions load less"
)


class WorkerLimits(Struct, frozen=True, kw_only=True):
    """The limits of each worker.

    Attributes:
        memory_bytes: resident memory above which a worker is replaced after a task. During a task it may use
            twice as much, or what the machine has left if that is less.
        hang_seconds: longest time without a message while it works; None for no limit.
        tasks: how many tasks it holds at a time. With two, it can start the next one at once; with one, no
            task waits behind a long one.
    """

    memory_bytes: int = 512 * 2**20
    hang_seconds: float | None = 60.0
    tasks: int = 1


class Done(Struct, frozen=True):
    """A task was done.

    Attributes:
        payload: the result.
    """

    payload: msgspec.Raw


class Failed(Struct, frozen=True):
    """A task raised an error.

    Attributes:
        error: the error.
    """

    error: PillowError


class Lost(Struct, frozen=True):
    """The worker ended while it worked on a task.

    Attributes:
        ending: how it ended.
    """

    ending: Ending


#: The result of a task.
Result = Done | Failed | Lost


class PoolEvents(ABC):
    """The events of a pool, for its owner. Nothing here may wait."""

    @abstractmethod
    def finished(self, number: int, result: Result) -> None:
        """Take the result of a task."""

    @abstractmethod
    def resized(self) -> None:
        """Note that a worker was started, or has ended."""

    @abstractmethod
    def ended(self, ending: Ending, pid: int) -> None:
        """Note that a worker has ended without being asked to."""

    @abstractmethod
    def noted(self, note: protocol.Note) -> None:
        """Take a report of a worker."""

    @abstractmethod
    def failed(self, error: FatalError) -> None:
        """Note that workers cannot be started; the pool has ended."""


class WorkerPool:
    """Runs tasks in worker processes, once it is started.

    Args:
        program: the program of a worker.
        size: how many workers.
        limits: of each.
        clock: for ages and waits.
        events: receives the events of the pool.
    """

    def __init__(
        self, program: Program, size: int, *, limits: WorkerLimits, clock: Clock, events: PoolEvents
    ) -> None:
        self._program = program
        self._size = size
        self._limits = limits
        self._clock = clock
        self._events = events
        self._workers: list[WorkerProcess] = []
        self._followers: list[gevent.Greenlet[[WorkerProcess], None]] = []
        self._waiting: deque[int] = deque()
        self._payloads: dict[int, msgspec.Raw] = {}
        self._failed_starts = Counter[Cause]()
        self._closing = False
        self._watcher = gevent.spawn(self._watch)

    def start(self) -> None:
        """Start the workers, one after the other: each start takes about 10 ms of this process."""
        for _ in range(self._size):
            if not self._closing:
                self._start()
            gevent.sleep(0)

    @property
    def size(self) -> int:
        """The number of workers that run or start."""
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers]

    @property
    def unfinished(self) -> int:
        """The number of tasks without a result."""
        return len(self._payloads)

    @property
    def needs_tasks(self) -> bool:
        """Whether a worker is idle, or soon will be."""
        return self.unfinished < self._size

    def submit(self, number: int, payload: msgspec.Raw, *, first: bool = False) -> None:
        """Add a task.

        Args:
            number: identifies the task; must not be in use.
            payload: for the worker.
            first: whether it goes before the waiting tasks.
        """
        self._payloads[number] = payload
        self._waiting.insert(0 if first else len(self._waiting), number)
        self._give()

    def cancel_waiting(self) -> list[int]:
        """Forget the tasks that no worker has; return their numbers."""
        cancelled = list(self._waiting)
        self._waiting.clear()
        for number in cancelled:
            del self._payloads[number]
        return cancelled

    def close(self, seconds: float) -> None:
        """End the workers after their current tasks; kill those that take longer.

        Args:
            seconds: longest time for that.
        """
        self._closing = True
        for worker in self._workers:
            worker.end()
        gevent.joinall(self._followers, timeout=seconds)
        self.kill()

    def kill(self) -> None:
        """Kill every worker, and wait for their ends. May be called twice."""
        self._closing = True
        self._watcher.kill()
        for worker in list(self._workers):
            worker.kill(Cause.ENDED)
        gevent.joinall(self._followers, timeout=_KILL_SECONDS)

    # --- workers

    def _start(self) -> None:
        try:
            task_bytes = choose_task_bytes(_PEAK * self._limits.memory_bytes, find_available_bytes())
            worker = WorkerProcess(self._program, task_bytes, self._clock)
        except OSError as error:
            self._give_up(f"A worker process cannot be started: {error.strerror}.")
            return
        self._workers.append(worker)
        follower = gevent.spawn(self._follow, worker)
        self._followers = [each for each in self._followers if not each.dead] + [follower]
        self._events.resized()

    def _follow(self, worker: WorkerProcess) -> None:
        """Handle the messages of a worker until it ends; then give its tasks to others."""
        refusal: FatalError | None = None
        while (message := worker.receive()) is not None:
            if isinstance(message, protocol.Refused):
                refusal = _to_fatal(message.failure.to_error())
            else:
                self._handle(worker, message)
        ending = worker.reap()
        self._workers.remove(worker)
        self._events.resized()
        if refusal is not None:
            self._fail(refusal)
            return
        self._recover(worker, ending)

    def _handle(self, worker: WorkerProcess, message: protocol.ToCoordinator) -> None:
        match message:
            case protocol.Ready():
                if worker.rss_bytes > _PEAK * self._limits.memory_bytes:  # no document is to blame
                    worker.kill(Cause.MEMORY)
                    return
                worker.is_ready = True
                self._failed_starts.clear()
            case protocol.Take(number):
                worker.taken = number
            case protocol.Done(number, payload):
                self._finish(worker, number, Done(payload))
            case protocol.Failed(number, failure):
                self._finish(worker, number, Failed(failure.to_error()))
            case protocol.Note():
                self._events.noted(message)
        self._give()

    def _finish(self, worker: WorkerProcess, number: int, result: Result) -> None:
        worker.taken = None
        worker.given.remove(number)
        del self._payloads[number]
        if worker.rss_bytes > self._limits.memory_bytes and not worker.retiring:
            worker.end()
            if not self._closing:
                self._start()
            self._events.ended(Ending(Cause.MEMORY), worker.pid)
        self._events.finished(number, result)

    def _recover(self, worker: WorkerProcess, ending: Ending) -> None:
        """Give the tasks of a worker that has ended to others, and replace it."""
        lost = worker.taken
        self._waiting.extendleft(number for number in reversed(worker.given) if number != lost)
        if lost is not None:
            del self._payloads[lost]
        if not self._closing and not worker.retiring:
            self._replace(worker, ending)
        if ending.cause is not Cause.ENDED:
            self._events.ended(ending, worker.pid)
        if lost is not None:
            self._events.finished(lost, Lost(ending))
        self._give()

    def _replace(self, worker: WorkerProcess, ending: Ending) -> None:
        """Start another worker; give up if several in a row fail to start."""
        self._failed_starts[ending.cause] += not worker.is_ready
        killed, failed = self._failed_starts[Cause.KILLED], self._failed_starts.total()
        if failed - killed >= MAX_FAILED_STARTS or killed >= MAX_KILLED_STARTS:
            reason = f"{failed} worker processes in a row ended before they were ready: {ending}."
            if ending.cause is Cause.MEMORY:
                self._fail(FatalError(reason, remedy=_MORE_MEMORY))
            else:
                self._give_up(reason)
        else:
            self._start()

    def _give(self) -> None:
        """Give waiting tasks to the workers that have the fewest."""
        while self._waiting and (worker := self._choose()) is not None:
            number = self._waiting.popleft()
            if not worker.given:
                worker.heard_at = self._clock.monotonic()
            worker.given.append(number)
            worker.post(protocol.Task(number, self._payloads[number]))

    def _choose(self) -> WorkerProcess | None:
        free = [
            each
            for each in self._workers
            if each.is_ready and not each.retiring and len(each.given) < self._limits.tasks
        ]
        return min(free, key=lambda each: len(each.given), default=None)

    def _watch(self) -> None:
        """Kill workers that hang, or use too much memory during a task."""
        while True:
            gevent.sleep(_WATCH_SECONDS)
            now = self._clock.monotonic()
            for worker in self._workers:
                bound = self._limits.hang_seconds if worker.is_ready else START_SECONDS
                is_busy = bool(worker.given) or not worker.is_ready
                if bound is not None and is_busy and now - worker.heard_at > bound:
                    worker.kill(Cause.HUNG)
                elif worker.rss_bytes > _PEAK * self._limits.memory_bytes:
                    worker.kill(Cause.MEMORY)

    def _give_up(self, reason: str) -> None:
        self._fail(FatalError(reason, remedy="see what they wrote to standard error"))

    def _fail(self, error: FatalError) -> None:
        if not self._closing:
            self._closing = True
            self._events.failed(error)


def _to_fatal(error: PillowError) -> FatalError:
    return error if isinstance(error, FatalError) else FatalError(str(error))
