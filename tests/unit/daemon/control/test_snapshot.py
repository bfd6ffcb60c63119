"""A snapshot is shared by all who ask within a second, unless a tail has entered another state."""

from __future__ import annotations

import itertools

from checkpoints import TailKey
from daemon.control.snapshot import Snapshots
from daemon.supervision.state_history import StateHistory
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock

A, B = TailKey("a", "couch/x"), TailKey("b", "couch/x")


class Made:
    """Snapshots of tails whose status counts how often it was made."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto=False)
        self.history = StateHistory(self.clock)
        self.keys = [A]
        self._count = itertools.count(1)
        self.snapshots = Snapshots(
            self._make_statuses, lambda: self.keys, self.clock, lambda: self.history.entered
        )

    def _make_statuses(self) -> list[TailStatus]:
        return [TailStatus(pillow="a", source="couch/x", state=State.LIVE, changes=next(self._count))]

    @property
    def number(self) -> int:
        return self.snapshots.get().statuses[0].changes


def test_all_who_ask_within_a_second_share_it() -> None:
    made = Made()
    assert [made.number for _ in range(3)] == [1, 1, 1]
    made.clock.advance(1.0)
    assert [made.number, made.number] == [2, 2]


def test_another_state_is_seen_at_once() -> None:
    made = Made()
    assert made.number == 1
    made.history.state(A, state="live", reason="")
    assert [made.number, made.number] == [2, 2]


def test_tails_that_come_or_go_and_acts_are_seen_at_once() -> None:
    made = Made()
    assert made.number == 1
    made.keys.append(B)
    assert made.number == 2
    made.snapshots.forget()
    assert [made.number, made.number] == [3, 3]
