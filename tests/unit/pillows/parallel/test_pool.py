"""A pool whose workers cannot start says so, and does not try for ever."""

from __future__ import annotations

import os
import signal

from pillows.clock import SystemClock
from pillows.errors import FatalError
from pillows.parallel.functions import FunctionName, FunctionSetup
from pillows.parallel.pool import MAX_FAILED_STARTS, PoolEvents, WorkerLimits, WorkerPool
from pillows.parallel.process import Ending, Program
from pillows.parallel.protocol import to_payload
from tests.support import worker_functions
from tests.support.waiting import wait_until


class Events(PoolEvents):
    def __init__(self) -> None:
        self.ends: list[Ending] = []
        self.failures: list[FatalError] = []

    def ended(self, ending: Ending, pid: int) -> None:
        self.ends.append(ending)

    def failed(self, error: FatalError) -> None:
        self.failures.append(error)


def pool_of(module: str, events: Events) -> WorkerPool:
    setup = to_payload(FunctionSetup(FunctionName.of(worker_functions.echo)))
    program = Program(module=module, setup=setup)
    return WorkerPool(program, 1, limits=WorkerLimits(), clock=SystemClock(), events=events)


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
