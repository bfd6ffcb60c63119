"""When a comparison is due: every so often, within hours, sooner after one that failed."""

from __future__ import annotations

import time

import pytest

from checkpoints import TailKey
from daemon.config.models import VerifyOptions
from daemon.verification.comparisons import Comparison
from daemon.verification.schedule import choose, find_due

DAY = 86_400.0
DAILY = VerifyOptions(every=DAY)
NOW = 1_000_000_000.0


@pytest.mark.parametrize(
    ("options", "last", "expected"),
    [
        (VerifyOptions(), None, None),
        (DAILY, None, 0.0),
        (DAILY, Comparison(at=NOW - DAY + 1), None),
        (DAILY, Comparison(at=NOW - DAY), NOW),
        (DAILY, Comparison(at=NOW - 3 * DAY), NOW - 2 * DAY),
        (DAILY, Comparison(at=NOW - 3600, reason="the source was away"), NOW),
        (DAILY, Comparison(at=NOW - 3599, reason="the source was away"), None),
        (VerifyOptions(every=60.0), Comparison(at=NOW - 60, reason="the source was away"), NOW),
        (DAILY, Comparison(at=NOW + 30 * DAY), None),
    ],
)
def test_a_comparison_is_due(options: VerifyOptions, last: Comparison | None, expected: float | None) -> None:
    assert find_due(options, last, NOW) == expected


def test_a_clock_that_was_set_back_puts_it_off_by_a_period_at_most() -> None:
    """The comparison is of the future: it counts as one of now, whenever that is asked."""
    assert find_due(DAILY, Comparison(at=NOW + DAY), NOW + 2 * DAY) == NOW + 2 * DAY


def test_it_begins_within_its_hours_only() -> None:
    options = VerifyOptions(every=DAY, hours="01:00-05:00")
    night, noon = (time.mktime((2026, 1, 2, hour, 0, 0, 0, 0, -1)) for hour in (2, 12))
    assert find_due(options, None, night) == 0.0
    assert find_due(options, None, noon) is None


def test_the_one_that_waits_longest_is_next() -> None:
    due = {TailKey("a", "c/d"): 5.0, TailKey("b", "c/d"): None, TailKey("c", "c/d"): 2.0}
    assert choose(due, due.__getitem__) == TailKey("c", "c/d")
    assert choose([], due.__getitem__) is None
