"""The status of a pillow that several daemons share."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import asdict, fields, replace

from checkpoints import TailKey
from daemon.kafka.merged_status import limit_by_reader, merge_statuses
from pillows.runtime.status import State, TailStatus

KEY = TailKey("cases", "couch/cases")


def status(state: State, reason: str = "", pillow: str = "cases") -> TailStatus:
    return TailStatus(pillow=pillow, source="couch/cases", state=state, reason=reason)


def test_a_pillow_is_as_well_as_the_worst_of_its_partitions_wherever_they_are() -> None:
    found = merge_statuses(
        KEY, {0: status(State.LIVE)}, {0: status(State.FAILED), 1: status(State.BACKING_OFF, "away")}, 2
    )
    assert (found.state, found.reason) == (State.BACKING_OFF, "partition 1: away")


@pytest.mark.parametrize("count", [0, 2, 4], ids=["not counted", "counted before more were added", "counted"])
def test_a_partition_that_no_daemon_reports_is_not_live(count: int) -> None:
    """Its owner may be stuck, or there may be none."""
    live = status(State.LIVE)
    found = merge_statuses(KEY, {0: live, 3: live}, {2: live}, count)
    assert (found.state, found.reason) == (State.STARTING, "partition 1: no daemon reports it")
    assert found.pending is None
    found = merge_statuses(KEY, {0: live, 3: live}, {1: live, 2: live}, count)
    assert (found.state, found.reason) == (State.LIVE, "2 of 4 partitions here")


def test_the_last_partitions_are_missed_too() -> None:
    found = merge_statuses(KEY, {0: status(State.LIVE)}, {1: status(State.LIVE)}, 4)
    assert (found.state, found.reason) == (State.STARTING, "partition 2: no daemon reports it")


def test_before_anything_is_known_it_waits() -> None:
    found = merge_statuses(KEY, {}, {}, 4)
    assert (found.state, found.reason) == (State.STARTING, "waits for partitions")


@pytest.mark.parametrize("state", [State.BACKING_OFF, State.FAILED])
def test_a_pillow_is_no_better_than_the_reader_of_its_database(state: State) -> None:
    found = limit_by_reader(status(State.LIVE), status(state, "no access", pillow="reader"))
    assert found.state is state
    assert found.reason == "its database is not read into the topic: no access"


def test_a_pillow_whose_database_nobody_reads_is_not_live() -> None:
    found = limit_by_reader(status(State.LIVE), None)
    assert (found.state, found.reason) == (State.BACKING_OFF, "no daemon reads its database into the topic")


@pytest.mark.parametrize("state", [State.STARTING, State.CATCHING_UP])
def test_a_pillow_whose_database_is_not_read_to_its_head_is_not_live(state: State) -> None:
    live = replace(
        status(State.LIVE, "2 of 4 partitions here"), pending=3, lag_seconds=0.0, seconds_to_go=0.1
    )
    reader = replace(status(state, pillow="reader"), pending=2_000_000, lag_seconds=60.0)
    assert limit_by_reader(live, reader) == replace(
        live,
        state=state,
        reason="2 of 4 partitions here; its database is still read into the topic",
        pending=2_000_003,
        lag_seconds=60.0,
        seconds_to_go=None,
    )


def test_what_a_live_reader_has_not_read_is_pending() -> None:
    live = replace(status(State.LIVE, "all here"), pending=3)
    found = limit_by_reader(live, replace(status(State.LIVE, pillow="reader"), pending=4))
    assert found == replace(live, pending=7)


def test_what_is_unknown_of_the_reader_is_unknown_of_the_pillow() -> None:
    found = limit_by_reader(replace(status(State.LIVE), pending=3), status(State.LIVE, pillow="reader"))
    assert (found.state, found.pending) == (State.LIVE, None)


@pytest.mark.parametrize("state", [State.PAUSED, State.STOPPED, State.FAILED])
def test_what_was_asked_for_and_what_is_worse_stands(state: State) -> None:
    other = status(state, "so")
    assert limit_by_reader(other, status(State.BACKING_OFF, "away", pillow="reader")) == other


def test_every_field_of_a_partition_reaches_the_pillow() -> None:
    """A field that is added to the status and forgotten here would be empty for shared pillows only."""
    filled = TailStatus(
        pillow="cases",
        source="couch/cases",
        state=State.FAILED,
        **{name: _make(name) for name in _names() - {"pillow", "source", "state"}},
    )
    empty = asdict(TailStatus(pillow="cases", source="couch/cases", state=State.STARTING))
    found = asdict(merge_statuses(KEY, {0: filled}, {}, 1))
    kept = {name for name in _names() if found[name] != empty[name]} | {"pillow", "source"}
    assert _names() - kept == {"databases"}, "a shared pillow is on one database"


def _names() -> set[str]:
    return {field.name for field in fields(TailStatus)}


def _make(name: str) -> Any:
    texts: dict[str, Any] = {"reason": "away", "seq": "5-x", "databases": {"live": 1}}
    return texts.get(name, 7)
