"""How far a mirror is, as it is told on a terminal and into a pipe."""

from __future__ import annotations

import pytest

from daemon.mirror.progress import RATE_SECONDS, RateMeter
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock
from tests.unit.daemon.mirror.console import Said


def status(changes: int, pending: int | None) -> TailStatus:
    return TailStatus(
        pillow="cases", source="couch/cases", state=State.CATCHING_UP, changes=changes, pending=pending
    )


@pytest.fixture
def terminal() -> Said:
    return Said(terminal=True)


def test_bar_shows_rate_rest_and_time_although_its_total_moves(terminal):
    """The source grows while it is read, so every look has another total."""
    with terminal.progress() as progress:
        for second in range(11):
            progress.update(status(5_000 + second * 500, 20_000 - second * 400))
            terminal.clock.advance(1)

    last = [line for line in terminal.lines() if "catching-up" in line][-1]
    assert "10,000 done" in last
    assert " 500/s " in last
    assert "16,000 left" in last
    assert "32s to go" in last


def test_the_bar_begins_without_a_rate(terminal):
    """The changes of an earlier run do not count for the rate of this one."""
    with terminal.progress() as progress:
        progress.update(status(5_000, None))

    last = [line for line in terminal.lines() if "catching-up" in line][-1]
    assert "-/s" in last
    assert "- left" in last
    assert "- to go" in last


def test_printed_line_is_above_the_bar(terminal):
    with terminal.progress() as progress:
        progress.update(status(1, 1))
        progress.print("mind this")

    assert "mind this" in "\n".join(terminal.lines())


def test_pipe_gets_a_line_with_rate_rest_and_time():
    said = Said()
    with said.progress() as progress:
        for second in range(11):
            progress.update(status(second * 500, 20_000))
            said.clock.advance(1)

    assert said.lines()[-1] == "catching-up: 5,000 changes, 500/s, 20,000 left, 40s to go"


def test_the_rate_is_that_of_the_last_seconds():
    clock = FakeClock(auto=False)
    pace = RateMeter(clock)
    pace.add(0)
    assert pace.per_second is None

    for _ in range(int(RATE_SECONDS) * 2):
        clock.advance(1)
        pace.add(0)
    assert pace.per_second == 0

    for second in range(1, int(RATE_SECONDS) + 1):
        clock.advance(1)
        pace.add(second * 100)
    assert pace.per_second == 100
