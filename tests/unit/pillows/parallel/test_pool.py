"""A pool whose workers cannot start says so, and does not try for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pillows.clock import SystemClock
from pillows.errors import FatalError
from pillows.parallel import protocol
from pillows.parallel.functions import FunctionName, FunctionSetup
from pillows.parallel.pool import MAX_FAILED_STARTS, Lost, PoolEvents, Result, WorkerLimits, WorkerPool
from pillows.parallel.process import Cause, Ending, Program
from pillows.parallel.protocol import to_payload
from tests.support import worker_functions
from tests.support.waiting import wait_until


class Events(PoolEvents):
    def __init__(self) -> None:
        self.ends: list[Ending] = []
        self.failures: list[FatalError] = []
        self.results: list[Result] = []

    def finished(self, number: int, result: Result) -> None:
        self.results.append(result)

    def resized(self) -> None:
        pass

    def noted(self, note: protocol.Note) -> None:
        raise AssertionError(note)

    def ended(self, ending: Ending, pid: int) -> None:
        self.ends.append(ending)

    def failed(self, error: FatalError) -> None:
        self.failures.append(error)


def pool_of(
    module: str,
    events: Events,
    limits: WorkerLimits | None = None,
    function: Callable[..., Any] = worker_functions.echo,
) -> WorkerPool:
    setup = to_payload(FunctionSetup(FunctionName.of(function)))
    program = Program(module=module, setup=setup)
    return WorkerPool(program, 1, limits=limits or WorkerLimits(), clock=SystemClock(), events=events)


def test_workers_that_end_before_they_are_ready_are_given_up():
    events = Events()
    pool = pool_of("tests.support.no_such_module", events)
    pool.start()
    wait_until(lambda: events.failures)
    pool.kill()
    assert len(events.ends) == MAX_FAILED_STARTS
    assert "5 worker processes in a row ended before they were ready: crashed (exit code 1)." in str(
        events.failures[0]
    )


def test_workers_whose_modules_take_too_much_memory_are_given_up_with_the_setting_to_raise():
    """They are never given a document, which would become a dead letter for it."""
    events = Events()
    pool = pool_of("pillows.parallel.function_worker", events, WorkerLimits(memory_bytes=2**20))
    pool.start()
    pool.submit(1, to_payload([1]))
    wait_until(lambda: events.failures)
    pool.kill()
    assert [each.cause for each in events.ends] == [Cause.MEMORY] * MAX_FAILED_STARTS
    assert "in a row ended before they were ready: memory. Remedy: raise `load.worker_memory`" in str(
        events.failures[0]
    )
    assert events.results == []


@pytest.mark.parametrize("function", [worker_functions.take_memory, worker_functions.share_memory])
def test_a_task_that_takes_all_memory_ends_its_worker_and_the_kernel_need_not_do_it(function):
    """The worker ends at its memory limit; the pool kills it if the limit does not count that memory."""
    events = Events()
    limits = WorkerLimits(memory_bytes=100 * 2**20)
    pool = pool_of("pillows.parallel.function_worker", events, limits, function)
    pool.start()
    pool.submit(1, to_payload([600 * 2**20]))
    wait_until(lambda: events.results)
    pool.kill()
    assert events.results == [Lost(Ending(Cause.MEMORY, "a task may take 200 MiB"))]


def test_workers_killed_from_outside_before_they_are_ready_are_started_again():
    events = Events()
    pool = pool_of("pillows.parallel.function_worker", events)
    pool.start()
    for count in range(2 * MAX_FAILED_STARTS):
        os.kill(pool.pids[0], signal.SIGKILL)
        wait_until(lambda count=count: len(events.ends) > count and pool.pids)  # type: ignore[misc]
    assert events.failures == []
    pool.close(10.0)
    assert pool.pids == []
