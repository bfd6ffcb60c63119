"""One comparison per second serves every reader."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daemon.streams.status_updates import StatusUpdates, find_changes


def facts(pillow: str, **more: Any) -> dict[str, Any]:
    return {"pillow": pillow, "source": "couch/x", "state": "live", "checkpoint_age_seconds": None, **more}


def names(update) -> list[str]:
    return [msgspec.json.decode(each)["pillow"] for each in update.pillows]


def test_a_new_reader_is_told_everything_and_then_only_what_changed():
    changes = StatusUpdates()
    changes.note([facts("a", checkpoint_age_seconds=1.0), facts("b")], at=10)
    first = changes.since(None)
    assert (names(first), first.complete) == (["a", "b"], True)
    changes.note([facts("a", checkpoint_age_seconds=2.0), facts("b", state="failed")], at=11)
    second = changes.since(first.version)
    assert (names(second), second.complete) == (["b"], False)
    assert names(changes.since(second.version)) == []
    assert names(changes.since(first.version)) == ["b"], "another reader, a second late"


def test_what_is_gone_is_told_unless_it_came_back():
    changes = StatusUpdates()
    changes.note([facts("a"), facts("b"), facts("c")], at=10)
    before = changes.since(None).version
    changes.note([facts("a")], at=11)
    assert sorted(changes.since(before).gone) == ["b@couch/x", "c@couch/x"]
    changes.note([facts("a"), facts("b")], at=12)
    update = changes.since(before)
    assert (names(update), list(update.gone)) == (["b"], ["c@couch/x"])


def test_a_version_of_another_time_gets_everything():
    changes = StatusUpdates()
    changes.note([facts("a")], at=10)
    assert changes.since(99).complete
    assert changes.since(-1).complete
    assert not changes.since(changes.since(None).version).complete


def test_who_missed_more_removals_than_are_remembered_gets_everything():
    changes = StatusUpdates()
    changes.note([facts("a")], at=10)
    before = changes.since(None).version
    changes.note([facts(f"p{number}") for number in range(1_200)], at=11)
    changes.note([facts("a")], at=12)
    assert changes.since(before).complete


def test_only_the_facts_that_changed_are_told_each_second():
    changes = StatusUpdates()
    changes.note([facts("a", pending=3, history=["x"])], at=10)
    before = changes.since(None).version
    changes.note([facts("a", pending=4, history=["x"])], at=11)
    delta = msgspec.json.decode(changes.since(before).pillows[0])
    assert delta == {"pillow": "a", "source": "couch/x", "pending": 4}
    changes.note([facts("a", pending=5, history=["x"])], at=12)
    late = msgspec.json.decode(changes.since(before).pillows[0])
    assert (late["pending"], late["history"], late["state"]) == (5, ["x"], "live")


def test_an_age_is_told_as_it_is_now():
    changes = StatusUpdates()
    changes.note([facts("a", checkpoint_age_seconds=1.0)], at=10)
    changes.note([facts("a", checkpoint_age_seconds=6.0)], at=15)
    assert msgspec.json.decode(changes.since(None).pillows[0])["checkpoint_age_seconds"] == 6.0


@pytest.mark.parametrize(
    ("known", "now", "changed"),
    [
        ({"x_age_seconds": 14.0}, {"x_age_seconds": 6.0}, {}),
        ({"x_age_seconds": 14.0}, {"x_age_seconds": 7.4}, {}),
        ({"x_age_seconds": 14.0}, {"x_age_seconds": 0.5}, {"x_age_seconds": 19.5}),
        ({"x_age_seconds": None}, {"x_age_seconds": 0.5}, {"x_age_seconds": 19.5}),
        ({"x_age_seconds": 14.0}, {"x_age_seconds": None}, {"x_age_seconds": None}),
        ({"x_age_seconds": None}, {"x_age_seconds": None}, {}),
        ({"lag_seconds": 1.0}, {"lag_seconds": 6.0}, {"lag_seconds": 6.0}),
        ({}, {"state": "live"}, {"state": "live"}),
        ({}, {"reason": None}, {"reason": None}),
    ],
)
def test_an_age_that_passed_with_the_clock_is_no_change(known, now, changed):
    assert find_changes(known, now, at=20.0) == changed
