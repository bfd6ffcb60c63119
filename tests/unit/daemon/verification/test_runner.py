"""Scheduled comparisons, one at a time, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

from checkpoints import TailKey
from daemon.config.models import VerifyOptions
from daemon.verification.comparisons import Comparison, Comparisons
from daemon.verification.runner import VerifyRunner
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock
from tests.support.waiting import wait_until

KEYS = [TailKey("a", "couch/db"), TailKey("b", "couch/db")]


class Noted(Observer):
    def __init__(self) -> None:
        self.verified_tails: list[tuple[TailKey, Any]] = []

    def verified(self, tail: TailKey, *, differences: Any) -> None:
        self.verified_tails.append((tail, differences))


class Scheduled:
    """A runner over two live tails, of which `a` is compared hourly; a comparison waits for `go`."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(auto=False)
        self.options = {"a": VerifyOptions(every=3600.0, repair=True), "b": VerifyOptions()}
        self.states = {key.pillow: State.LIVE for key in KEYS}
        self.comparisons = Comparisons(folder / "comparisons.json")
        self.observer = Noted()
        self.drift = ""
        self.result = Comparison(at=0.0, differences={"pg": {"missing": 0}})
        self.began: list[tuple[str, bool]] = []
        self.go = Event()
        self.go.set()
        self.runner = VerifyRunner(
            self._compare,
            get_config=lambda: cast("Any", SimpleNamespace(tails=self._tails())),
            find_drift=lambda _: self.drift,
            supervisor=cast("Any", SimpleNamespace(keys=KEYS, status=self._status)),
            comparisons=self.comparisons,
            observer=self.observer,
            clock=self.clock,
        )

    def tick(self) -> None:
        self.runner.tick()
        gevent.idle()
        wait_until(lambda: not (self.runner.running and self.go.is_set()))

    def _tails(self) -> dict[str, Any]:
        return {name: SimpleNamespace(verify=options) for name, options in self.options.items()}

    def _status(self, key: TailKey) -> TailStatus:
        return TailStatus(pillow=key.pillow, source=key.source, state=self.states[key.pillow])

    def _compare(self, key: TailKey, *, options: Sequence[str], now: Callable[[], float]) -> Comparison:
        self.began.append((key.pillow, list(options) == ["--repair"]))
        self.go.wait()
        return Comparison(
            at=now(), differences=self.result.differences, reason=self.result.reason, repaired=0
        )


@pytest.fixture
def scheduled(tmp_path: Path) -> Scheduled:
    return Scheduled(tmp_path)


def test_it_runs_every_so_often_and_reports(scheduled: Scheduled) -> None:
    scheduled.result = Comparison(at=0.0, differences={"pg": {"missing": 2}})
    with capture_logs() as logs:
        scheduled.tick()
        scheduled.tick()
    assert scheduled.began == [("a", True)]
    assert scheduled.observer.verified_tails == [(KEYS[0], {"pg": {"missing": 2}})]
    (event,) = logs
    assert (event["event"], event["log_level"]) == ("verify.completed", "error")
    assert event["remedy"] == "`pillowd verify a@couch/db --repair`"
    scheduled.clock.advance(3600)
    scheduled.tick()
    assert len(scheduled.began) == 2


def test_only_one_runs_at_a_time(scheduled: Scheduled) -> None:
    scheduled.options["b"] = VerifyOptions(every=60.0)
    scheduled.go.clear()
    scheduled.tick()
    scheduled.tick()
    assert scheduled.began == [("a", True)]
    scheduled.go.set()
    wait_until(lambda: not scheduled.runner.running)
    scheduled.tick()
    assert scheduled.began == [("a", True), ("b", False)]


@pytest.mark.parametrize("state", [State.CATCHING_UP, State.PAUSED, State.FAILED])
def test_a_tail_that_is_not_live_waits(scheduled: Scheduled, state: State) -> None:
    scheduled.states["a"] = state
    scheduled.tick()
    assert scheduled.began == []
    scheduled.states["a"] = State.LIVE
    scheduled.tick()
    assert scheduled.began == [("a", True)]


def test_a_configuration_that_was_not_reloaded_is_no_measure(scheduled: Scheduled) -> None:
    scheduled.drift = "the configuration has changed"
    with capture_logs() as logs:
        scheduled.tick()
    assert scheduled.began == []
    assert [event["reason"] for event in logs] == ["the configuration has changed"]
    assert scheduled.observer.verified_tails == []
    scheduled.drift = ""
    scheduled.clock.advance(3600)
    scheduled.tick()
    assert scheduled.began == [("a", True)]


def test_it_is_remembered_after_a_restart(scheduled: Scheduled, tmp_path: Path) -> None:
    scheduled.tick()
    assert scheduled.began == [("a", True)]
    again = Scheduled(tmp_path)
    again.tick()
    assert again.began == []


def test_the_end_of_the_daemon_ends_it(scheduled: Scheduled) -> None:
    scheduled.go.clear()
    scheduled.tick()
    scheduled.runner.close()
    assert scheduled.comparisons.get(KEYS[0]) is None
