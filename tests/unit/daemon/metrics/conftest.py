"""Metrics over a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from checkpoints import TailKey
from daemon.metrics.facts import ConnectionFacts, Facts, TailLabels
from daemon.metrics.metrics import Metrics
from daemon.rebuilds.record import Rebuild, RebuildState
from daemon.reload.reloader import ReloadRecord
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock

KEY = TailKey("cases", "couch/cases")
LABELS = TailLabels(connection="couch", source="cases", transports=("warehouse", "search"))
STATUS = TailStatus(
    pillow="cases",
    source="couch/cases",
    state=State.CATCHING_UP,
    seq="7-x",
    changes=30,
    pending=70,
    lag_seconds=12.5,
    changes_per_second=3.0,
    seconds_to_go=23.0,
    epoch=2,
    pass_number=2,
    dead_letters=4,
    restarts=1,
    last_byte_age_seconds=2.0,
    checkpoint_age_seconds=3.0,
)


class Scrape:
    """Metrics, and how to read them."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(auto=False, wall=1000.0)
        self.rebuilds = {KEY: Rebuild(state=RebuildState.READY, live=1, other=2, last=2, reason="a view")}
        self.backfill: dict[str, Any] | None = None
        self.metrics = Metrics(self.clock, folder)
        self.statuses = [STATUS]
        self.tails = {KEY: LABELS}
        self.reload = ReloadRecord(successful=True, succeeded_at=1000.0)
        self.requests: Counter[tuple[str, str, int]] = Counter()
        facts = Facts(
            statuses=lambda: self.statuses,
            labels_of=self.tails.get,
            connections=lambda: {"couch": ConnectionFacts(open=3, outcomes={"ok": 5})},
            reload=lambda: self.reload,
            requests=self.requests,
            rebuilds=lambda: self.rebuilds,
            expiries=lambda: [1_900_000_000.0],
            backfills=lambda _: self.backfill,
        )
        self.metrics.attach(facts, self.tails)

    def start(self, tail: TailKey, labels: TailLabels) -> None:
        """Put a tail into the configuration, and start it."""
        self.tails[tail] = labels
        self.metrics.observer.state(tail, state="starting", reason="")

    @property
    def text(self) -> str:
        return self.metrics.render().text.decode()

    def series(self) -> dict[str, float]:
        """`name{label=value}`, labels in the order of the alphabet -> value."""
        return {
            sample.name
            + "{"
            + ",".join(sorted(f"{k}={v}" for k, v in sample.labels.items()))
            + "}": sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def __getitem__(self, series: str) -> float:
        name, _, labels = series.rstrip("}").partition("{")
        return self.series()[f"{name}{{{','.join(sorted(labels.split(',')))}}}"]


@pytest.fixture
def scrape(tmp_path: Path) -> Scrape:
    return Scrape(tmp_path)
