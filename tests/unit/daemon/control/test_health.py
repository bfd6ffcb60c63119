"""When the daemon is alive, and when it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from daemon.control.health import TICK_SECONDS, Health
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock


@dataclass
class Supervisor:
    ticked_at: float
    ending: bool = False


def made() -> tuple[Health, Supervisor, FakeClock]:
    clock = FakeClock(auto=False)
    supervisor = Supervisor(clock.monotonic())
    return Health(cast("Any", supervisor), clock), supervisor, clock


def is_ready(health: Health, *states: State, strict: bool = False) -> bool:
    statuses = [TailStatus(pillow=f"p{n}", source="couch/x", state=state) for n, state in enumerate(states)]
    return all(check.passed for check in health.ready(statuses, strict=strict))


def test_it_lives_while_the_supervisor_ticks() -> None:
    health, supervisor, clock = made()
    clock.advance(TICK_SECONDS)
    assert all(check.passed for check in health.live())
    clock.advance(0.1)
    assert not all(check.passed for check in health.live())
    supervisor.ticked_at = clock.monotonic()
    assert all(check.passed for check in health.live())


def test_it_is_ready_once_each_pillow_has_tried_and_none_has_failed() -> None:
    health, supervisor, _ = made()
    assert is_ready(health)
    assert not is_ready(health, State.LIVE, State.STARTING)
    assert is_ready(health, State.LIVE, State.CATCHING_UP, State.PAUSED)
    assert is_ready(health, State.LIVE, State.STARTING), "it restarts"
    assert is_ready(health, State.LIVE, State.BACKING_OFF)
    assert not is_ready(health, State.LIVE, State.BACKING_OFF, strict=True)
    assert not is_ready(health, State.LIVE, State.FAILED)
    supervisor.ending = True
    assert not is_ready(health, State.LIVE)
