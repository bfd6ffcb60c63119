"""An exchange in several targets: finished, undone where one refuses, and gone on with after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent.event import Event

from checkpoints import Checkpoint, Seq, TailKey
from daemon.rebuilds.record import Rebuild, RebuildState
from daemon.rebuilds.switch import GIVE_UP_SECONDS, Switch
from daemon.state_dir import StateDir, open_state_dir
from pillows.dead_letters.dead_letter import DeadLetter
from pillows.errors import AwayError, ConfigError, RetryableError
from pillows.transports.common.builds import BuildSwitch, Exchange
from tests.support.clock import FakeClock

KEY = TailKey("cases", "couch/cases")
SHADOW, PARKED = TailKey("cases~2", "couch/cases"), TailKey("cases~1", "couch/cases")


class Target(BuildSwitch):
    """A target that remembers which build is live, and answers the first calls as it is told."""

    def __init__(self, *answers: Exception | Callable[[], None] | None) -> None:
        self.live = 1
        self.calls = 0
        self._answers = list(answers)

    def list_obstacles(self, *, copies: bool = False) -> Sequence[str]:
        return []

    def exchange(self, exchange: Exchange, *, copies: bool = False) -> None:
        self.calls += 1
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, AwayError):  # it has happened all the same
            self.live = exchange.incoming
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            answer()
        self.live = exchange.incoming

    def drop(self) -> None:
        raise AssertionError("nobody asked for that")


@contextmanager
def switching(tmp_path: Path, clock: FakeClock, **fields: Any) -> Iterator[StateDir]:
    with open_state_dir(tmp_path / "state", clock) as state:
        if state.rebuilds.get(KEY) is None:
            record: dict[str, Any] = {
                "state": RebuildState.SWITCHING, "live": 1, "other": 2, "last": 2,
                "before": RebuildState.READY, "wanted": "switched", **fields,
            }  # fmt: skip
            state.rebuilds.put(KEY, Rebuild(**record))
            for key, seq in ((KEY, "9-live"), (SHADOW, "8-shadow")):
                state.store.save(key, Checkpoint(seq=Seq.of(seq)))
                state.dead_letters.add([letter(key, seq)])
        yield state


def letter(tail: TailKey, id: str) -> DeadLetter:
    return DeadLetter(
        tail=tail, transport="a", id=id, rev="1-a", leaf_version=1, stage="transport", error="no"
    )


def run(state: StateDir, clock: FakeClock, **targets: Target) -> Rebuild | None:
    switch = Switch(KEY, state, forwards=targets, backwards=targets, clock=clock, stop=Event())
    return switch.run()


def seqs(state: StateDir) -> dict[str, str]:
    found = {key: state.store.get(key) for key in (KEY, SHADOW, PARKED)}
    return {key.pillow: str(checkpoint.seq) for key, checkpoint in found.items() if checkpoint}


def letters(state: StateDir) -> dict[str, set[str]]:
    return {key.pillow: state.dead_letters.ids(key, "a") for key in (KEY, SHADOW, PARKED)}


def test_both_targets_the_letters_and_the_checkpoints_change_hands(tmp_path: Path) -> None:
    clock, first, second = FakeClock(), Target(), Target()
    with switching(tmp_path, clock) as state:
        done = run(state, clock, first=first, second=second)
        assert (first.live, second.live) == (2, 2)
        assert done is not None
        assert (done.state, done.live, done.other, done.steps) == (RebuildState.SWITCHED, 2, 1, ())
        assert seqs(state) == {"cases": "8-shadow", "cases~1": "9-live"}
        assert letters(state) == {"cases": {"8-shadow"}, "cases~1": {"9-live"}, "cases~2": set()}


def test_the_way_back_is_another_state(tmp_path: Path) -> None:
    clock = FakeClock()
    with switching(tmp_path, clock, before=RebuildState.SWITCHED) as state:
        done = run(state, clock, first=Target())
    assert done is not None
    assert done.state is RebuildState.ROLLED_BACK


def test_copied_rows_leave_no_other_build(tmp_path: Path) -> None:
    clock = FakeClock()
    with switching(tmp_path, clock, switch="replace-rows") as state:
        done = run(state, clock, first=Target())
        assert done is not None
        assert (done.state, done.live) == (RebuildState.DROPPED, 2)
        assert seqs(state) == {"cases": "8-shadow"}
        assert letters(state) == {"cases": {"8-shadow"}, "cases~1": set(), "cases~2": set()}


def test_a_busy_target_is_asked_again_and_says_why_it_waits(tmp_path: Path) -> None:
    clock = FakeClock()
    said: list[str] = []
    with switching(tmp_path, clock) as state:

        def look() -> None:
            record = state.rebuilds.get(KEY)
            assert record is not None
            said.append(record.reason)

        target = Target(RetryableError("a report reads it"), look)
        done = run(state, clock, first=target)
    assert said == ["a report reads it"]
    assert (done and done.reason, target.calls) == ("", 2)


def test_a_target_that_is_away_is_waited_for_without_end(tmp_path: Path) -> None:
    """Nobody knows whether the builds in that target have already been exchanged."""
    clock = FakeClock()
    target = Target(*[AwayError("no route")] * 500)
    with switching(tmp_path, clock) as state:
        done = run(state, clock, first=target)
    assert done is not None
    assert clock.monotonic() > GIVE_UP_SECONDS
    assert (done.state, target.live) == (RebuildState.SWITCHED, 2)


@pytest.mark.parametrize("refusal", [[ConfigError("view v hangs on it.")], [RetryableError("locked")] * 1000])
def test_what_one_target_refuses_is_undone_in_the_others(tmp_path: Path, refusal: list[Exception]) -> None:
    clock, first, second = FakeClock(), Target(), Target(*refusal)
    second._answers.append(None)
    with switching(tmp_path, clock) as state:
        refused = Target(*refusal)
        switch = Switch(
            KEY,
            state,
            forwards={"first": first, "second": refused},
            backwards={"first": first, "second": Target()},
            clock=clock,
            stop=Event(),
        )
        undone = switch.run()
        assert undone is not None
        assert (undone.state, undone.live, undone.switch) == (RebuildState.READY, 1, "manual")
        assert undone.reason.startswith("second: ")
        assert (first.live, refused.live) == (1, 1)
        assert seqs(state) == {"cases": "9-live", "cases~2": "8-shadow"}


def test_an_undoing_that_was_interrupted_goes_on_as_one(tmp_path: Path) -> None:
    clock, first = FakeClock(), Target()
    first.live = 2
    with switching(tmp_path, clock, undoing="second: no", steps=("first",)) as state:
        undone = run(state, clock, first=first, second=Target())
    assert undone is not None
    assert (undone.state, first.live) == (RebuildState.READY, 1)


@pytest.mark.parametrize("steps", [(), ("first",), ("first", "second"), ("first", "second", "dead-letters")])
def test_after_a_crash_the_rest_is_done(tmp_path: Path, steps: tuple[str, ...]) -> None:
    clock, first, second = FakeClock(), Target(), Target()
    with switching(tmp_path, clock, steps=steps) as state:
        if "dead-letters" in steps:
            state.dead_letters.hand_over(KEY, PARKED)
            state.dead_letters.hand_over(SHADOW, KEY)
            state.store.exchange(KEY, shadow=SHADOW, parked=PARKED)
        done = run(state, clock, first=first, second=second)
        assert done is not None
        assert done.state is RebuildState.SWITCHED
        assert (first.calls, second.calls) == ("first" not in steps, "second" not in steps)
        assert seqs(state) == {"cases": "8-shadow", "cases~1": "9-live"}
        assert letters(state) == {"cases": {"8-shadow"}, "cases~1": {"9-live"}, "cases~2": set()}


def test_a_stop_leaves_the_intent_for_the_next_start(tmp_path: Path) -> None:
    clock, stop = FakeClock(), Event()
    target = Target(RetryableError("locked"))
    target._answers.append(stop.set)
    with switching(tmp_path, clock) as state:
        stop.set()
        switch = Switch(KEY, state, forwards={"a": target}, backwards={"a": target}, clock=clock, stop=stop)
        assert switch.run() is None
        record = state.rebuilds.get(KEY)
        assert record is not None
        assert record.state is RebuildState.SWITCHING
