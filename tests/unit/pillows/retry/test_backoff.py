from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pillows.retry.backoff import Backoff


def test_the_bound_doubles_from_the_initial_delay_up_to_the_cap():
    backoff = Backoff(initial_seconds=0.5, max_seconds=60, draw=lambda: 1.0)
    assert [backoff.next() for _ in range(10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_reset_begins_anew():
    backoff = Backoff(initial_seconds=1, draw=lambda: 1.0)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert (backoff.attempts, backoff.next()) == (0, 1)


def test_what_the_server_asked_for_is_never_shortened():
    backoff = Backoff(initial_seconds=1, max_seconds=2, draw=lambda: 0.0)
    assert backoff.next(at_least_seconds=120) == 120


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_any_number_of_failures_stays_between_zero_and_the_cap(failures: int, drawn: float):
    backoff = Backoff(initial_seconds=0.5, max_seconds=60, draw=lambda: drawn)
    assert all(0 <= backoff.next() <= 60 for _ in range(failures))
