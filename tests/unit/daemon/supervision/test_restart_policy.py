"""When a crashed tail is restarted, and when it is given up."""

from __future__ import annotations

import pytest

from daemon.config.models import RestartOptions
from daemon.supervision import restart_policy
from daemon.supervision.restart_policy import HEALTHY_SECONDS, Restarts

POLICY = RestartOptions(initial=1.0, max=5.0, max_restarts=4, within=100.0)


def make(policy: RestartOptions = POLICY, draw: float = 0.5) -> Restarts:
    return Restarts(policy, lambda: draw)


def crash(restarts: Restarts, *moments: float, ran_seconds: float = 1.0) -> list[float | None]:
    return [restarts.crashed(now=now, ran_seconds=ran_seconds) for now in moments]


def test_the_wait_doubles_with_each_crash_up_to_its_limit() -> None:
    assert crash(make(), 0, 1, 2, 3) == [0.5, 1.0, 2.0, 2.5]


def test_a_tail_that_crashed_too_often_is_given_up() -> None:
    restarts = make()
    assert crash(restarts, 0, 1, 2, 3)[-1] is not None
    assert crash(restarts, 4) == [None]
    assert restarts.total == 4


def test_without_permitted_restarts_the_first_crash_is_the_last() -> None:
    assert crash(make(RestartOptions(max_restarts=0)), 0) == [None]


@pytest.mark.parametrize(("now", "delay"), [(99.9, None), (100.0, 2.5)])
def test_a_crash_counts_for_the_configured_period(now: float, delay: float | None) -> None:
    restarts = make()
    crash(restarts, 0, 1, 2, 3)
    assert crash(restarts, now) == [delay]


def test_only_crashes_within_the_period_make_the_wait_longer() -> None:
    assert crash(make(), 0, 1, 101) == [0.5, 1.0, 0.5]


@pytest.mark.parametrize(("ran_seconds", "delay"), [(HEALTHY_SECONDS - 0.1, 2.0), (HEALTHY_SECONDS, 0.5)])
def test_a_long_run_resets_the_count(ran_seconds: float, delay: float) -> None:
    restarts = make()
    crash(restarts, 0, 1)
    assert crash(restarts, 2, ran_seconds=ran_seconds) == [delay]


def test_the_total_goes_on_when_crashes_are_forgotten() -> None:
    restarts = make()
    assert restarts.total == 0
    crash(restarts, 0, 1)
    restarts.forget()
    assert crash(restarts, 2) == [0.5]
    assert restarts.total == 3


def test_a_new_policy_applies_to_the_crashes_before_it() -> None:
    restarts = make()
    crash(restarts, 0, 1)
    restarts.set_policy(RestartOptions(initial=2.0, max=60.0, max_restarts=3, within=100.0))
    assert crash(restarts, 2, 3) == [4.0, None]


def test_limits_are_those_of_the_documentation() -> None:
    limits = (
        restart_policy.HEALTHY_SECONDS,
        restart_policy.STUCK_SECONDS,
        restart_policy.ACCESS_RETRY_SECONDS,
    )
    assert limits == (120.0, 60.0, 300.0)
