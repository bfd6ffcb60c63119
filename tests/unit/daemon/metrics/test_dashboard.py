"""The dashboard asks for what there is, and the file in `etc/` is the one that is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.metrics.dashboard import Panel, UnknownMetricError, make_dashboard

FILE = Path(__file__).parents[4] / "etc" / "grafana" / "pillowd.json"


def test_the_file_is_current() -> None:
    """Mend it by `python -m daemon.metrics.dashboard > etc/grafana/pillowd.json`."""
    assert json.loads(FILE.read_text()) == make_dashboard()


def test_a_panel_that_asks_for_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UnknownMetricError, match="pillowd_lag_second"):
        Panel(title="Lag", queries=[("max(pillowd_lag_second)", "")])
    Panel(title="Lag", queries=[("rate(pillowd_batch_duration_seconds_bucket[1m])", "")])


def test_no_two_panels_cover_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in make_dashboard()["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    assert max(x for x, _ in taken) == 23
