"""Which way of getting documents a catch-up takes."""

from __future__ import annotations

import itertools

from pillows.feed.documents.fetch_mode import (
    FIRST_STRETCH_LAPS,
    LAP_ROWS,
    LAP_SECONDS,
    LONGEST_STRETCH_LAPS,
    MAX_FAILURES,
    FetchMode,
    FetchModeTuner,
)


def laps(choice: FetchModeTuner, count: int, rates: dict[FetchMode, float]) -> list[FetchMode]:
    """Which way each of some laps went, where the ways are so fast (rows a second)."""
    went, at = [], 0.0
    choice.begin(at)
    for _ in range(count):
        went.append(choice.mode)
        assert choice.count(LAP_ROWS, at)
        at += LAP_ROWS / rates[choice.mode]
        choice.end(at)
    return went


def test_both_ways_are_tried_and_the_faster_one_is_kept():
    slow, fast = (
        {FetchMode.BULK_GET: 7e3, FetchMode.INCLUDE_DOCS: 15e3},
        {FetchMode.BULK_GET: 12e3, FetchMode.INCLUDE_DOCS: 7e3},
    )
    assert laps(FetchModeTuner(), 6, slow) == [FetchMode.BULK_GET] + [FetchMode.INCLUDE_DOCS] * 5
    assert (
        laps(FetchModeTuner(), 6, fast)
        == [FetchMode.BULK_GET, FetchMode.INCLUDE_DOCS] + [FetchMode.BULK_GET] * 4
    )


def test_a_way_that_is_hardly_faster_changes_nothing():
    assert (
        laps(FetchModeTuner(), 5, {FetchMode.BULK_GET: 10e3, FetchMode.INCLUDE_DOCS: 11e3})[2:]
        == [FetchMode.BULK_GET] * 3
    )


def test_the_slower_way_is_tried_again_ever_more_seldom():
    went = laps(FetchModeTuner(), 1000, {FetchMode.BULK_GET: 12e3, FetchMode.INCLUDE_DOCS: 7e3})
    tried = [n for n, way in enumerate(went) if way is FetchMode.INCLUDE_DOCS]
    gaps = [after - before for before, after in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] > FIRST_STRETCH_LAPS
    assert gaps[-1] > LONGEST_STRETCH_LAPS
    assert len(tried) < 0.02 * len(went)


def test_a_server_that_changes_is_noticed():
    choice = FetchModeTuner()
    assert laps(choice, 4, {FetchMode.BULK_GET: 12e3, FetchMode.INCLUDE_DOCS: 7e3})[-1] is FetchMode.BULK_GET
    went = laps(choice, 100, {FetchMode.BULK_GET: 5e3, FetchMode.INCLUDE_DOCS: 7e3})
    assert went[-30:].count(FetchMode.INCLUDE_DOCS) >= 29


def test_a_lap_is_over_once_it_has_its_rows_or_was_long():
    choice = FetchModeTuner()
    choice.begin(0.0)
    assert not choice.count(LAP_ROWS - 1, 1.0)
    assert choice.count(1, 1.0)
    choice.begin(10.0)
    assert not choice.count(50, 10.0 + LAP_SECONDS / 2)
    assert choice.count(50, 10.0 + LAP_SECONDS)


def test_an_outage_is_no_part_of_a_lap():
    choice = FetchModeTuner()
    choice.begin(0.0)
    choice.count(LAP_ROWS - 1, 0.5)
    choice.begin(3600.0)  # the source was away, and the reading began anew
    assert not choice.count(LAP_ROWS - 1, 3600.5)
    assert choice.count(1, 3600.9)
    choice.end(3601.0)
    choice.count(LAP_ROWS, 3601.9)
    choice.end(3601.0 + 0.9)  # along: a ninth faster, which an hour would have hidden
    assert choice.mode is FetchMode.BULK_GET


def test_a_trial_that_fails_is_given_up_and_made_again_more_seldom():
    choice = FetchModeTuner()
    laps(choice, 1, {FetchMode.BULK_GET: 1e4})
    assert choice.mode is FetchMode.INCLUDE_DOCS
    choice.fail()
    assert choice.mode is FetchMode.BULK_GET
    assert set(laps(choice, FIRST_STRETCH_LAPS + 2, {FetchMode.BULK_GET: 1e4})) == {FetchMode.BULK_GET}


def test_a_way_that_fails_again_and_again_is_left_for_the_other():
    choice = FetchModeTuner()
    for _ in range(MAX_FAILURES):
        assert choice.mode is FetchMode.BULK_GET
        choice.fail()
    assert choice.mode is FetchMode.INCLUDE_DOCS
    laps(choice, 1, {FetchMode.INCLUDE_DOCS: 1e4})
    assert choice.mode is FetchMode.BULK_GET, "the way that failed is tried again like any other"
