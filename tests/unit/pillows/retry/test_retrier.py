"""Trying again: seldom what is busy, often what is away, since only that wants to be found back soon."""

from __future__ import annotations

from gevent.event import Event

from pillows.errors import AwayError, RetryableError
from pillows.retry.backoff import AWAY_SECONDS
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from tests.support.clock import FakeClock
from tests.support.memory_transport import KEY
from tests.support.recorder import Recorder


def delays(errors):
    """Returns the seconds of the wait after each of these errors."""
    seen = Recorder()
    retrier = Retrier(KEY, StopAwareWaiter(FakeClock(), Event()), seen)
    left = list(errors)

    def attempt():
        if left:
            raise left.pop(0)
        return "done"

    assert retrier.retry_write("target", attempt) == "done"
    return [told["delay_seconds"] for told in seen.of("retry")]


def test_what_is_away_for_long_is_asked_every_few_seconds_all_the_same():
    found = delays(AwayError("refused") for _ in range(200))

    assert len(found) == 200
    assert max(found) <= AWAY_SECONDS


def test_what_is_busy_for_long_is_asked_seldom():
    assert max(delays(RetryableError("429") for _ in range(200))) > 4 * AWAY_SECONDS


def test_what_is_back_and_still_busy_counts_anew():
    """A server that has started refuses for a while: it was not busy all the time that it was away."""
    found = delays([*(AwayError("refused") for _ in range(100)), RetryableError("429"), AwayError("refused")])

    assert max(found[100:]) <= 0.5


def test_what_the_other_side_asks_for_is_never_shortened():
    assert delays([AwayError("503", retry_after_seconds=90)]) == [90]
