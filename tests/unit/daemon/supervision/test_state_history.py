"""The history of a tail is its last states, and nothing of a tail that is gone."""

from __future__ import annotations

from checkpoints import TailKey
from daemon.supervision.state_history import LENGTH, StateChange, StateHistory
from pillows.runtime.status import State
from tests.support.clock import FakeClock

ONE, OTHER = TailKey("one", "couch/one"), TailKey("other", "couch/other")


def test_it_has_the_last_states_with_time_and_reason() -> None:
    clock = FakeClock(auto=False, wall=1000.0)
    history = StateHistory(clock)
    assert history.of(ONE) == ()
    history.state(ONE, state="starting", reason="")
    clock.advance(5)
    history.state(ONE, state="failed", reason="401")
    history.state(OTHER, state="live", reason="")
    assert history.of(ONE) == (
        StateChange(at=1000.0, state=State.STARTING, reason=""),
        StateChange(at=1005.0, state=State.FAILED, reason="401"),
    )
    for number in range(100):
        history.state(ONE, state="backing-off", reason=str(number))
    assert [each.reason for each in history.of(ONE)] == [str(n) for n in range(100 - LENGTH, 100)]


def test_a_removed_tail_is_forgotten() -> None:
    history = StateHistory(FakeClock(auto=False))
    history.state(ONE, state="starting", reason="")
    history.removed(ONE)
    assert history.of(ONE) == ()
