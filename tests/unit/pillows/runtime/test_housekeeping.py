"""When a tail's jobs start: each when it is due, never twice at once, none when nothing is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event

from pillows.runtime.housekeeping import Housekeeping, Job
from tests.support.clock import FakeClock


class Jobs:
    """A housekeeping under a fake clock, and what its jobs did."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto=False)
        self.began_at = self.clock.monotonic()
        self.halt = Event()
        self.errors: list[Exception] = []
        self.housekeeping = Housekeeping(self.clock, self.halt, self.errors.append)
        self.started_at: list[float] = []

    def job(self, run: Callable[[], float | None] = lambda: None) -> Job:
        def noted() -> float | None:
            self.started_at.append(self.clock.monotonic() - self.began_at)
            return run()

        return Job(noted)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.halt.set()
    made.housekeeping.kill()


def test_a_job_starts_in_time_and_once(jobs: Jobs) -> None:
    job = jobs.job()
    jobs.housekeeping.start_soon(job, 5.0)
    jobs.housekeeping.start_soon(job, 7.0)  # it starts sooner anyhow
    jobs.clock.advance(4.9)
    assert jobs.started_at == []
    jobs.clock.advance(100.0)
    assert jobs.started_at == [5.0]


def test_nothing_waits_when_nothing_is_due(jobs: Jobs) -> None:
    jobs.housekeeping.start_soon(jobs.job(), 5.0)
    jobs.clock.advance(5.0)
    waits = len(jobs.clock.waited)
    jobs.clock.advance(3600.0)
    assert len(jobs.clock.waited) == waits


def test_a_waiting_job_is_hastened(jobs: Jobs) -> None:
    job = jobs.job()
    jobs.housekeeping.start_soon(job, 60.0)
    jobs.clock.advance(1.0)
    jobs.housekeeping.start_soon(job, 0.5)
    jobs.clock.advance(100.0)
    assert jobs.started_at == [1.5]


def test_a_job_repeats_itself_as_long_as_it_says(jobs: Jobs) -> None:
    again = [10.0, 20.0, None]
    jobs.housekeeping.start_soon(jobs.job(lambda: again.pop(0)), 0.0)
    jobs.clock.advance(100.0)
    assert jobs.started_at == [0.0, 10.0, 30.0]


def test_a_job_that_runs_is_started_again_when_it_has_ended(jobs: Jobs) -> None:
    may_end = Event()
    job = jobs.job(lambda: may_end.wait() and None)
    jobs.housekeeping.start_soon(job, 0.0)
    jobs.clock.advance(1.0)
    jobs.housekeeping.start_soon(job, 0.0)
    jobs.clock.advance(1.0)
    assert jobs.started_at == [0.0], "never twice at once"
    may_end.set()
    gevent.idle()
    assert jobs.started_at == [0.0, 2.0]


def test_an_error_is_handed_over_and_a_stop_starts_nothing_more(jobs: Jobs) -> None:
    def fail() -> float | None:
        raise RuntimeError("no")

    jobs.housekeeping.start_soon(jobs.job(fail), 0.0)
    jobs.housekeeping.start_soon(jobs.job(), 9.0)
    jobs.clock.advance(1.0)
    assert [str(error) for error in jobs.errors] == ["no"]
    jobs.halt.set()
    jobs.clock.advance(100.0)
    assert jobs.started_at == [0.0]


def test_a_job_that_failed_is_started_again_even_if_that_was_asked_for_while_it_ran(jobs: Jobs) -> None:
    def fail() -> float | None:
        jobs.housekeeping.start_soon(job, 0.0)
        raise RuntimeError("no")

    job = jobs.job(fail)
    jobs.housekeeping.start_soon(job, 0.0)
    jobs.clock.advance(1.0)
    jobs.housekeeping.start_soon(job, 0.0)
    jobs.clock.advance(1.0)
    assert jobs.started_at == [0.0, 1.0]


def test_a_killed_job_is_not_started_again(jobs: Jobs) -> None:
    killed, other = jobs.job(), jobs.job()
    jobs.housekeeping.start_soon(killed, 5.0)
    jobs.housekeeping.start_soon(other, 6.0)
    jobs.housekeeping.kill(killed)
    jobs.housekeeping.start_soon(killed, 0.0)
    jobs.clock.advance(100.0)
    assert jobs.started_at == [6.0]
