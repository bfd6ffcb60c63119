"""Which way of getting documents a catch-up takes."""

from __future__ import annotations

import itertools

import pytest

from pillows.feed.documents.fetch_mode import (
    FIRST_STRETCH_LAPS,
    LAP_ROWS,
    LAP_SECONDS,
    LAPS_BEFORE_TRIAL,
    LONGEST_STRETCH_LAPS,
    MAX_FAILURES,
    MIN_TRIAL_ROWS,
    TRIAL_SHARE,
    FetchMode,
    FetchModeTuner,
)

BULK_GET, INCLUDE_DOCS = FetchMode.BULK_GET, FetchMode.INCLUDE_DOCS

#: Changes behind, of which a trial takes a whole lap.
FAR = LAP_ROWS * TRIAL_SHARE


def laps(
    choice: FetchModeTuner, count: int, rates: dict[FetchMode, float], pending: int = FAR
) -> list[FetchMode]:
    """Returns the mode of each of some laps, given the speed of both modes in rows per second."""
    went, at = [], 0.0
    choice.begin(at)
    for _ in range(count):
        went.append(choice.mode)
        rows = choice.rows_left
        assert choice.count(rows, at)
        at += rows / rates[choice.mode]
        changes = choice.changes_mode(pending)
        before = choice.mode
        choice.end(at, pending)
        assert changes or choice.mode is before, "the mode changes only as announced"
    return went


def test_documents_come_along_and_the_other_way_is_kept_if_it_is_faster() -> None:
    slow, fast = {BULK_GET: 21e3, INCLUDE_DOCS: 32e3}, {BULK_GET: 12e3, INCLUDE_DOCS: 7e3}
    begin = [INCLUDE_DOCS] * LAPS_BEFORE_TRIAL + [BULK_GET]
    assert laps(FetchModeTuner(), len(begin) + 4, slow) == begin + [INCLUDE_DOCS] * 4
    assert laps(FetchModeTuner(), len(begin) + 4, fast) == begin + [BULK_GET] * 4


def test_a_way_that_is_hardly_faster_changes_nothing() -> None:
    went = laps(FetchModeTuner(), LAPS_BEFORE_TRIAL + 4, {BULK_GET: 11e3, INCLUDE_DOCS: 10e3})
    assert went[-3:] == [INCLUDE_DOCS] * 3


def test_the_slower_way_is_tried_again_ever_more_seldom() -> None:
    went = laps(FetchModeTuner(), 1000, {BULK_GET: 7e3, INCLUDE_DOCS: 12e3})
    tried = [n for n, way in enumerate(went) if way is BULK_GET]
    gaps = [after - before for before, after in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] > FIRST_STRETCH_LAPS
    assert gaps[-1] > LONGEST_STRETCH_LAPS
    assert len(tried) < 0.02 * len(went)


@pytest.mark.parametrize("pending", [100_000, 200_000, 1_000_000, 20_000_000])
def test_trials_cost_hardly_any_time(pending: int) -> None:
    rates = {BULK_GET: 21e3, INCLUDE_DOCS: 32e3}
    choice, at, trials = FetchModeTuner(), 0.0, 0
    choice.begin(at)
    left = pending
    while left > 0:
        rows = choice.rows_left
        trials += choice.mode is BULK_GET
        at += rows / rates[choice.mode]
        left -= rows
        if choice.count(rows, at):
            choice.end(at, left)
    assert at <= 1.02 * pending / rates[INCLUDE_DOCS]
    assert trials or pending < 2 * TRIAL_SHARE * MIN_TRIAL_ROWS


def test_there_is_no_trial_that_would_tell_nothing() -> None:
    few = TRIAL_SHARE * MIN_TRIAL_ROWS - 1
    assert set(laps(FetchModeTuner(), 50, {BULK_GET: 9e3, INCLUDE_DOCS: 1e3}, few)) == {INCLUDE_DOCS}


def test_a_server_that_changes_is_noticed() -> None:
    choice = FetchModeTuner()
    assert laps(choice, 4, {BULK_GET: 12e3, INCLUDE_DOCS: 7e3})[-1] is BULK_GET
    went = laps(choice, 100, {BULK_GET: 5e3, INCLUDE_DOCS: 7e3})
    assert went[-30:].count(INCLUDE_DOCS) >= 29


def test_a_lap_is_over_once_it_has_its_rows_or_was_long() -> None:
    choice = FetchModeTuner()
    choice.begin(0.0)
    assert not choice.count(LAP_ROWS - 1, 1.0)
    assert choice.rows_left == 1
    assert choice.count(1, 1.0)
    choice.begin(10.0)
    assert not choice.count(50, 10.0 + LAP_SECONDS / 2)
    assert choice.count(50, 10.0 + LAP_SECONDS)


def test_an_outage_is_no_part_of_a_lap() -> None:
    choice = FetchModeTuner()
    laps(choice, LAPS_BEFORE_TRIAL - 1, {INCLUDE_DOCS: 1e4})
    choice.begin(0.0)
    choice.count(LAP_ROWS - 1, 0.5)
    choice.begin(3600.0)  # the source was away, and the reading began anew
    assert not choice.count(LAP_ROWS - 1, 3600.5)
    assert choice.count(1, 3600.9)
    choice.end(3601.0, FAR)
    choice.count(LAP_ROWS, 3601.9)
    choice.end(3601.0 + 0.9, FAR)  # a ninth faster, which an hour would have hidden
    assert choice.mode is INCLUDE_DOCS


def test_a_trial_that_fails_is_given_up_and_made_again_more_seldom() -> None:
    choice = FetchModeTuner()
    laps(choice, LAPS_BEFORE_TRIAL, {INCLUDE_DOCS: 1e4})
    assert choice.mode is BULK_GET
    choice.fail()
    assert choice.mode is INCLUDE_DOCS
    assert set(laps(choice, FIRST_STRETCH_LAPS, {INCLUDE_DOCS: 1e4})) == {INCLUDE_DOCS}


def test_a_way_that_fails_again_and_again_is_left_for_the_other() -> None:
    choice = FetchModeTuner()
    for _ in range(MAX_FAILURES):
        assert choice.mode is INCLUDE_DOCS
        choice.fail()
    assert choice.mode is BULK_GET
    laps(choice, LAPS_BEFORE_TRIAL, {BULK_GET: 1e4})
    assert choice.mode is INCLUDE_DOCS, "the way that failed is tried again like any other"


def test_a_lap_that_the_target_holds_up_proves_nothing() -> None:
    """A trial of a thousand rows fits into the queues, so it would seem faster than a target can write."""
    choice = FetchModeTuner()
    laps(choice, LAPS_BEFORE_TRIAL, {BULK_GET: 21e3, INCLUDE_DOCS: 7e3})
    assert choice.mode is BULK_GET
    choice.begin(0.0)
    assert choice.count(choice.rows_left, 1.0)
    choice.end(1.0, FAR, held_up_seconds=0.2)
    assert choice.mode is INCLUDE_DOCS
    assert choice.rows_left == LAP_ROWS
    assert laps(choice, 2, {BULK_GET: 21e3, INCLUDE_DOCS: 7e3}) == [INCLUDE_DOCS, BULK_GET]


def test_a_lap_that_the_target_hardly_holds_up_is_compared() -> None:
    choice = FetchModeTuner()
    laps(choice, LAPS_BEFORE_TRIAL, {BULK_GET: 21e3, INCLUDE_DOCS: 7e3})
    choice.begin(0.0)
    choice.count(choice.rows_left, 0.1)
    choice.end(0.1, FAR, held_up_seconds=0.005)
    assert choice.mode is BULK_GET, "the trial was faster"
