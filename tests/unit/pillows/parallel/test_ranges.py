"""Ranges cover the key space, and a folder of them survives whatever ends the program."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import Tracker
from pillows.errors import ConfigError
from pillows.parallel.ranges import Ranges, cut_ranges


def holds(each, key) -> bool:
    return (each.begin is None or key >= each.begin) and (each.end is None or key < each.end)


@given(st.sets(st.text(max_size=3), max_size=6), st.lists(st.text(max_size=3), max_size=6))
def test_b4_every_key_is_in_exactly_one_range(bounds, keys):
    """The union is complete, nothing overlaps, and ranges are half-open; also around a bound itself."""
    ranges = cut_ranges(sorted(bounds))
    assert len(ranges) == len(bounds) + 1
    for key in [*keys, *bounds, ""]:
        assert Counter(holds(each, key) for each in ranges)[True] == 1


def test_b4_an_empty_and_a_single_key_space_have_ranges():
    assert [each[1:] for each in cut_ranges([])] == [(None, None)]
    assert [each[1:] for each in cut_ranges(["a"])] == [(None, "a"), ("a", None)]


def test_a_plan_is_made_once_and_its_bounds_are_not_even_read_again(tmp_path):
    def never():
        raise AssertionError("read again")
        yield

    with Ranges(tmp_path / "work") as ranges:
        ranges.plan([1, 2])
        assert len(ranges) == 3
    with Ranges(tmp_path / "work") as ranges:
        ranges.plan(never())
        assert [each.begin for each in ranges.unfinished()] == [None, 1, 2]


def test_a_plan_that_a_crash_has_cut_is_made_again(tmp_path):
    with Tracker(tmp_path / "work") as torn:
        torn.update({0: {"begin": None, "end": 1, "of": 3}})
    with Ranges(tmp_path / "work") as ranges:
        assert len(ranges) == 0
        ranges.plan([5])
        assert [each[1:] for each in ranges.unfinished()] == [(None, 5), (5, None)]


def test_what_is_done_has_its_value_and_what_failed_its_reason(tmp_path):
    with Ranges(tmp_path / "work") as ranges:
        ranges.plan([1, 2])
        first, second, third = ranges.unfinished()
        ranges.finish(first, {"points": 3})
        ranges.fail(second, "it is bad")
        assert str(ranges.progress).startswith("1 of 3 ranges done, 1 failed, ")
    with Ranges(tmp_path / "work") as ranges:
        assert list(ranges.results()) == [(first, {"points": 3})]
        assert list(ranges.failed()) == [(second, "it is bad")]
        assert list(ranges.unfinished()) == [third]


def test_a_range_is_done_again_on_demand_whether_it_failed_or_not(tmp_path):
    with Ranges(tmp_path / "work") as ranges:
        ranges.plan([1])
        first, second = ranges.unfinished()
        ranges.finish(first, 1)
        ranges.fail(second, "bad")
        ranges.retry(0)
        ranges.retry(1)
        assert list(ranges.unfinished()) == [first, second]
        assert list(ranges.failed()) == []
        with pytest.raises(ConfigError, match=r"no range 2\. Remedy: give one from 0 to 1"):
            ranges.retry(2)


def test_progress_knows_the_time_to_go_once_something_is_done(tmp_path):
    with Ranges(tmp_path / "work") as ranges:
        ranges.plan(range(1, 4))
        assert ranges.progress.seconds_to_go is None
        ranges.finish(next(ranges.unfinished()), None)
        assert ranges.progress.seconds_to_go is not None
        assert (ranges.progress.done, ranges.progress.total) == (1, 4)
