"""Both tails of a pillow stand still before its builds are exchanged."""

from __future__ import annotations

import pytest
from gevent.event import Event

from daemon.errors import ConflictError
from daemon.rebuilds.tails import CATCH_UP_SECONDS, BuildTails
from pillows.errors import RetryableError
from tests.support.clock import FakeClock
from tests.unit.daemon.rebuilds.tail_states import KEY, OTHER, TailStates


def make(states: TailStates, clock: FakeClock) -> BuildTails:
    return BuildTails(states.as_supervisor, lambda: 30.0, clock=clock, stop=Event())


def test_the_other_tail_stands_still_when_it_has_caught_up() -> None:
    clock, states = FakeClock(), TailStates()
    states.pending = [3, 1, 0]
    make(states, clock).drain(KEY, OTHER)
    assert states.calls == ["hold cases", "hold cases~2"]
    assert clock.monotonic() < 1000 + CATCH_UP_SECONDS


@pytest.mark.parametrize("pending", [1, None])
def test_a_tail_that_does_not_catch_up_or_does_not_say_so_is_not_switched_to(pending: int | None) -> None:
    clock, states = FakeClock(), TailStates()
    states.pending = [pending]
    with pytest.raises(RetryableError, match=r"cases~2@couch/cases did not catch up within 5 s"):
        make(states, clock).drain(KEY, OTHER)
    assert clock.monotonic() == pytest.approx(1000 + CATCH_UP_SECONDS, abs=0.1)
    assert states.calls == ["hold cases"]


def test_a_tail_that_is_gone_is_not_switched_to() -> None:
    states = TailStates()
    states.keys.remove(OTHER)
    with pytest.raises(RetryableError, match="did not catch up"):
        make(states, FakeClock()).drain(KEY, OTHER)


def test_a_tail_that_does_not_stop_is_named() -> None:
    states = TailStates()
    states.deaf.add(KEY)
    with pytest.raises(ConflictError, match=r"cases@couch/cases did not stop in 35 s"):
        make(states, FakeClock()).drain(KEY, OTHER)
