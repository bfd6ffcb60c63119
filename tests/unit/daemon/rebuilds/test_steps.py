"""Which step a rebuild takes next."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.rebuilds.record import Rebuild, RebuildState
from daemon.rebuilds.steps import VERIFY_AGAIN_SECONDS, NextStep, Step, find_next_step
from pillows.runtime.status import State, TailStatus

NOW = 1_000_000.0


def record(state: RebuildState, **fields: Any) -> Rebuild:
    return Rebuild(state=state, live=1, other=2, last=2, changed_at=NOW - 10, **fields)


def tail(state: State = State.LIVE, **fields: Any) -> TailStatus:
    return TailStatus(pillow="cases~2", source="couch/cases", state=state, **fields)


@pytest.mark.parametrize(
    ("rebuild", "other", "step"),
    [
        (record(RebuildState.BUILDING), tail(State.CATCHING_UP), None),
        (record(RebuildState.BUILDING), tail(pass_number=2), None),
        (record(RebuildState.BUILDING), tail(pipeline_changed_at=1.0), Step.BEGIN_AGAIN),
        (record(RebuildState.BUILDING), tail(), Step.VERIFY),
        (record(RebuildState.VERIFYING), tail(), Step.VERIFY),
        (record(RebuildState.READY), tail(State.BACKING_OFF), None),
        (record(RebuildState.READY), tail(), Step.SWITCH),
        (record(RebuildState.READY, switch="manual"), tail(), None),
        (record(RebuildState.READY, switch="manual", wanted="switched"), tail(), Step.SWITCH),
        (record(RebuildState.SWITCHING), None, Step.SWITCH),
        (record(RebuildState.SWITCHED), tail(), None),
        (record(RebuildState.SWITCHED, wanted="rolled-back"), tail(State.CATCHING_UP), None),
        (record(RebuildState.SWITCHED, wanted="rolled-back"), tail(), Step.SWITCH),
        (record(RebuildState.SWITCHED, keep_seconds=9.0), tail(), Step.DROP),
        (record(RebuildState.SWITCHED, keep_seconds=9.0, wanted="rolled-back"), tail(), Step.SWITCH),
        (record(RebuildState.ROLLED_BACK, keep_seconds=9.0), None, Step.DROP),
        (record(RebuildState.DROPPING), None, Step.DROP),
    ],
)
def test_the_next_step(rebuild: Rebuild, other: TailStatus | None, step: Step | None) -> None:
    assert find_next_step(rebuild, other, now=NOW).step is step


def test_a_comparison_that_found_something_is_made_again_after_a_while() -> None:
    rebuild = record(RebuildState.VERIFYING, reason="3 documents differ", failure="3 documents differ")
    soon = find_next_step(rebuild, tail(), now=NOW, verified_at=NOW - VERIFY_AGAIN_SECONDS + 1)
    assert soon == NextStep(reason="3 documents differ")
    assert (
        find_next_step(rebuild, tail(), now=NOW, verified_at=NOW - VERIFY_AGAIN_SECONDS).step is Step.VERIFY
    )
    assert find_next_step(rebuild, tail(), now=NOW, verified_at=NOW + 9).step is Step.VERIFY, "the clock"


@pytest.mark.parametrize(
    ("state", "other", "said"),
    [
        (RebuildState.BUILDING, None, "`pillowd rebuild cancel KEY`"),
        (RebuildState.BUILDING, tail(State.FAILED, reason="no such column"), "no such column"),
        (RebuildState.BUILDING, tail(State.PAUSED), ""),
        (RebuildState.SWITCHED, None, "it is not up to date"),
        (RebuildState.SWITCHED, tail(State.FAILED, reason="gone"), "gone"),
    ],
)
def test_what_is_waited_for_is_said(state: RebuildState, other: TailStatus | None, said: str) -> None:
    found = find_next_step(record(state), other, now=NOW)
    assert found.step is None
    assert said in found.reason


@pytest.mark.parametrize("state", [RebuildState.VERIFYING, RebuildState.READY])
def test_what_was_waited_for_is_not_said_any_more(state: RebuildState) -> None:
    rebuild = record(state, switch="manual", reason="no such column", failure="a: view v hangs on it")
    assert find_next_step(rebuild, tail(), now=NOW, verified_at=NOW).reason == "a: view v hangs on it"
