"""Which way of getting documents a catch-up takes."""

from __future__ import annotations

import itertools

from pillows.feed.fetch_mode import (
    FIRST_STRETCH_LAPS,
    LAP_ROWS,
    LAP_SECONDS,
    LONGEST_STRETCH_LAPS,
    MOST_FAILURES,
    Choice,
    Way,
)


def laps(choice: Choice, count: int, rates: dict[Way, float]) -> list[Way]:
    """Which way each of some laps went, where the ways are so fast (rows a second)."""
    went, at = [], 0.0
    choice.begin(at)
    for _ in range(count):
        went.append(choice.way)
        assert choice.counts(LAP_ROWS, at)
        at += LAP_ROWS / rates[choice.way]
        choice.end(at)
    return went


def test_both_ways_are_tried_and_the_faster_one_is_kept():
    slow, fast = {Way.APART: 7e3, Way.ALONG: 15e3}, {Way.APART: 12e3, Way.ALONG: 7e3}
    assert laps(Choice(), 6, slow) == [Way.APART] + [Way.ALONG] * 5
    assert laps(Choice(), 6, fast) == [Way.APART, Way.ALONG] + [Way.APART] * 4


def test_a_way_that_is_hardly_faster_changes_nothing():
    assert laps(Choice(), 5, {Way.APART: 10e3, Way.ALONG: 11e3})[2:] == [Way.APART] * 3


def test_the_slower_way_is_tried_again_ever_more_seldom():
    went = laps(Choice(), 1000, {Way.APART: 12e3, Way.ALONG: 7e3})
    tried = [n for n, way in enumerate(went) if way is Way.ALONG]
    gaps = [after - before for before, after in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] > FIRST_STRETCH_LAPS
    assert gaps[-1] > LONGEST_STRETCH_LAPS
    assert len(tried) < 0.02 * len(went)


def test_a_server_that_changes_is_noticed():
    choice = Choice()
    assert laps(choice, 4, {Way.APART: 12e3, Way.ALONG: 7e3})[-1] is Way.APART
    went = laps(choice, 100, {Way.APART: 5e3, Way.ALONG: 7e3})
    assert went[-30:].count(Way.ALONG) >= 29


def test_a_lap_is_over_once_it_has_its_rows_or_was_long():
    choice = Choice()
    choice.begin(0.0)
    assert not choice.counts(LAP_ROWS - 1, 1.0)
    assert choice.counts(1, 1.0)
    choice.begin(10.0)
    assert not choice.counts(50, 10.0 + LAP_SECONDS / 2)
    assert choice.counts(50, 10.0 + LAP_SECONDS)


def test_an_outage_is_no_part_of_a_lap():
    choice = Choice()
    choice.begin(0.0)
    choice.counts(LAP_ROWS - 1, 0.5)
    choice.begin(3600.0)  # the source was away, and the reading began anew
    assert not choice.counts(LAP_ROWS - 1, 3600.5)
    assert choice.counts(1, 3600.9)
    choice.end(3601.0)
    choice.counts(LAP_ROWS, 3601.9)
    choice.end(3601.0 + 0.9)  # along: a ninth faster, which an hour would have hidden
    assert choice.way is Way.APART


def test_a_trial_that_fails_is_given_up_and_made_again_more_seldom():
    choice = Choice()
    laps(choice, 1, {Way.APART: 1e4})
    assert choice.way is Way.ALONG
    choice.fail()
    assert choice.way is Way.APART
    assert set(laps(choice, FIRST_STRETCH_LAPS + 2, {Way.APART: 1e4})) == {Way.APART}


def test_a_way_that_fails_again_and_again_is_left_for_the_other():
    choice = Choice()
    for _ in range(MOST_FAILURES):
        assert choice.way is Way.APART
        choice.fail()
    assert choice.way is Way.ALONG
    laps(choice, 1, {Way.ALONG: 1e4})
    assert choice.way is Way.APART, "the way that failed is tried again like any other"
