"""The lag of a tail is never less than the truth at its source, as far as that can be known."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pillows.feed.base import SIGN_OF_LIFE
from pillows.progress.lag import WINDOW_SECONDS, Lag, Rate
from tests.support.clock import FakeClock
from tests.support.list_feed import batch, change

HEAD = batch(9, caught_up=True)
PAGE = replace(batch(3, change("a")), pending=7)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=False)


@pytest.fixture
def lag(clock: FakeClock) -> Lag:
    return Lag(clock)


@pytest.fixture
def rate(clock: FakeClock) -> Rate:
    return Rate(clock)


def note(lag: Lag, what=SIGN_OF_LIFE, *, is_well: bool = True, last_byte_at: float | None = None) -> None:
    lag.note_batch(what, is_well=is_well, last_byte_at=last_byte_at)


def test_before_the_first_head_it_is_unknown(lag: Lag):
    note(lag, PAGE)
    assert lag.seconds(None) is None


def test_at_the_head_it_is_the_age_of_the_oldest_change_that_is_not_acknowledged(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    arrived_at = clock.monotonic()
    clock.advance(4)
    assert lag.seconds(arrived_at) == 4
    assert lag.seconds(None) == 0


def test_an_idle_tail_stays_at_the_head(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    for _ in range(10):
        clock.advance(5)
        note(lag)
    assert lag.seconds(None) == 0


def test_while_catching_up_it_goes_back_to_the_last_head(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    clock.advance(10)
    lag.start()
    note(lag, PAGE)
    clock.advance(10)
    assert lag.seconds(clock.monotonic()) == 20
    note(lag, HEAD)
    assert lag.seconds(None) == 0


def test_it_grows_while_the_source_is_away_from_its_last_byte_on(lag: Lag, clock: FakeClock):
    heard_at = clock.monotonic()
    note(lag, HEAD, last_byte_at=heard_at)
    clock.advance(30)
    note(lag, last_byte_at=heard_at)
    assert lag.seconds(None) == 0, "nothing is known to be wrong"
    note(lag, is_well=False, last_byte_at=heard_at)
    clock.advance(5)
    assert lag.seconds(None) == 35


def test_a_source_that_answers_again_is_not_at_its_head_before_it_says_so(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    note(lag, is_well=False)
    clock.advance(5)
    note(lag, PAGE)
    assert lag.seconds(None) == 5
    note(lag, HEAD)
    assert lag.seconds(None) == 0


def test_a_tail_that_is_too_slow_for_its_source_falls_behind_though_each_change_is_fresh(
    lag: Lag, clock: FakeClock
):
    note(lag, HEAD)
    for _ in range(60):
        clock.advance(1)
        lag.note_acknowledged(10)
        note(lag)
    lag.note_unread(5000)
    assert lag.seconds(clock.monotonic()) == 0, "it may be a burst"
    clock.advance(30)
    lag.note_unread(8000)
    assert lag.seconds(clock.monotonic()) == 30
    lag.note_unread(0)
    assert lag.seconds(None) == 0


def test_a_burst_at_one_look_is_no_overload(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    for unread in (50, 0, 50, 0):
        lag.note_unread(unread)
        clock.advance(30)
        assert lag.seconds(None) == 0


def test_the_rate_of_a_run_begins_with_it(lag: Lag, clock: FakeClock):
    lag.note_acknowledged(1000)
    clock.advance(1000)
    lag.start()
    assert lag.changes_per_second == 0
    clock.advance(4)
    lag.note_acknowledged(100)
    assert lag.changes_per_second == 25


def test_what_came_before_a_run_says_nothing_about_its_head(lag: Lag, clock: FakeClock):
    note(lag)
    assert lag.seconds(None) is None, "before any run"
    note(lag, HEAD)
    lag.start()
    clock.advance(5)
    note(lag)
    assert lag.seconds(None) == 5


def test_a_feed_that_has_more_to_read_again_has_left_the_head(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    clock.advance(5)
    note(lag, PAGE)
    assert lag.seconds(None) == 5
    note(lag)
    assert lag.seconds(None) == 5, "until a batch says that it is back"


def test_an_overload_is_not_carried_into_the_next_run(lag: Lag, clock: FakeClock):
    lag.note_unread(50)
    lag.start()
    note(lag, HEAD)
    lag.note_unread(50)
    clock.advance(5)
    assert lag.seconds(None) == 0, "the run's first answer of that kind"


def test_a_tail_that_acknowledges_as_much_as_is_left_is_fast_enough(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    for _ in range(3):
        lag.note_acknowledged(10)
        lag.note_unread(10)
        clock.advance(30)
        assert lag.seconds(None) == 0


def test_it_is_never_negative(lag: Lag, clock: FakeClock):
    note(lag, HEAD)
    assert lag.seconds(clock.monotonic() + 1) == 0


def test_a_rate_is_an_average_over_the_window(rate: Rate, clock: FakeClock) -> None:
    for _ in range(100):
        clock.advance(0.5)
        rate.add(5)
    assert rate.per_second == pytest.approx(10, rel=0.05)


def test_what_is_older_than_the_window_does_not_count(rate: Rate, clock: FakeClock) -> None:
    rate.add(1000)
    clock.advance(WINDOW_SECONDS)
    assert (rate.recent, rate.per_second) == (0, 0)
    rate.add(60)
    assert rate.per_second == 60 / WINDOW_SECONDS


def test_a_count_lasts_30_seconds_and_is_joined_with_those_of_its_second(
    rate: Rate, clock: FakeClock
) -> None:
    rate.add(1)
    clock.advance(0.5)
    rate.add(10)
    clock.advance(0.5)
    rate.add(100)
    clock.advance(28.5)
    assert rate.recent == 111
    clock.advance(0.5)
    assert rate.recent == 100, "the first two are counted together, from the first on"
    clock.advance(1)
    assert rate.recent == 0


def test_at_first_a_rate_is_an_average_over_less(rate: Rate, clock: FakeClock) -> None:
    rate.add(10)
    assert rate.per_second == 10, "never over less than a second"
    clock.advance(4)
    assert rate.per_second == 2.5
    rate.start()
    assert rate.per_second == 0


def test_a_rate_remembers_a_number_of_counts_that_does_not_grow(rate: Rate, clock: FakeClock) -> None:
    for _ in range(10_000):
        clock._now += 0.01
        rate.add(1)
    assert len(rate._counts) <= WINDOW_SECONDS + 1
