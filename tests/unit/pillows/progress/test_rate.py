"""A rate is that of the last seconds, whatever was before."""

from __future__ import annotations

import pytest

from pillows.progress.rate import WINDOW_SECONDS, Rate
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=False)


@pytest.fixture
def rate(clock: FakeClock) -> Rate:
    return Rate(clock)


def test_it_is_an_average_over_the_window(rate: Rate, clock: FakeClock) -> None:
    for _ in range(100):
        clock.advance(0.5)
        rate.add(5)
    assert rate.per_second == pytest.approx(10, rel=0.05)


def test_what_is_older_does_not_count(rate: Rate, clock: FakeClock) -> None:
    rate.add(1000)
    clock.advance(WINDOW_SECONDS)
    assert (rate.recent, rate.per_second) == (0, 0)
    rate.add(60)
    assert rate.per_second == 60 / WINDOW_SECONDS


def test_at_first_it_is_an_average_over_less(rate: Rate, clock: FakeClock) -> None:
    rate.add(10)
    assert rate.per_second == 10, "never over less than a second"
    clock.advance(4)
    assert rate.per_second == 2.5
    rate.start()
    assert rate.per_second == 0


def test_it_remembers_a_number_of_counts_that_does_not_grow(rate: Rate, clock: FakeClock) -> None:
    for _ in range(10_000):
        clock._now += 0.01
        rate.add(1)
    assert len(rate._counts) <= WINDOW_SECONDS + 1
