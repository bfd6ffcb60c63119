from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from msgspec.structs import asdict
from rich.console import Console

from daemon.app import summary
from daemon.cli.formatting import (
    describe_work,
    format_duration,
    format_rate,
    format_status,
    format_time,
    shorten_seq,
)
from pillows.runtime.status import State, TailStatus

#: The fields of a status other than the pillows.
ASIDE: dict[str, Any] = {"listeners": [], "unfinished_acts": []}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (59.6, "1m"), (61, "1m 1s"), (11_520, "3h 12m"), (90_061, "1d 1h"), (-3, "0s")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_moments_and_tokens() -> None:
    assert format_time(1_700_000_000.0) == "2023-11-14 22:13:20Z"
    assert format_time(0) == format_time(None) == "-"
    assert shorten_seq("7-g1AAAACZ0z0pU2Ynx2N2t") == "7-g1AAAACZ0z0pU2…"
    assert shorten_seq(7) == "7"
    assert shorten_seq(None) == "-"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(None, "-"), (0, "0"), (0.01, "<0.1"), (3.14, "3.1"), (4, "4"), (12_345.6, "12,346")],
)
def test_rates(per_second: float | None, text: str) -> None:
    assert format_rate(per_second) == text


def test_the_status_of_a_catch_up_has_rate_and_time_to_go() -> None:
    status = TailStatus(
        pillow="cases",
        source="couch/cases",
        state=State.CATCHING_UP,
        pending=1_000_000,
        lag_seconds=75.0,
        changes_per_second=2_500.0,
        seconds_to_go=400.0,
    )
    text = shown({"running": True, "pid": 7, "up_seconds": 61.0, "pillows": [facts_of(status)]})
    assert "1,000,000   1m 15s       2,500   6m 40s" in text


def facts_of(status: TailStatus, **comparison: Any) -> dict[str, Any]:
    whole = {"at": 1_700_000_000.0, "differences": {}, "repaired": 0, "reason": "", **comparison}
    return asdict(status) | {"comparison": whole if comparison else None, "rebuild": None, "backfill": None}


def test_status_tells_how_far_a_backfill_and_a_rebuild_are() -> None:
    status = TailStatus(pillow="cases", source="couch/cases", state=State.LIVE)
    sent = {
        "state": "running",
        "documents": 20_000,
        "done": 1_200,
        "per_second": 600.0,
        "seconds_to_go": 31.0,
    }
    rebuild = {"state": "verifying", "reason": "3 documents differ"}
    pillow = facts_of(status) | {"backfill": sent, "rebuild": rebuild}
    text = shown({"running": True, "pid": 7, "up_seconds": 61.0, "pillows": [pillow]})
    assert (
        "cases: backfill running: 1,200 of 20,000 documents, 600/s, 31s to go; rebuild verifying: 3" in text
    )
    assert describe_work({"backfill": None, "rebuild": rebuild | {"state": "switched"}}) == ""
    listing = sent | {"state": "waiting", "documents": None}
    assert describe_work({"backfill": listing, "rebuild": None}) == "backfill waiting: 1,200 documents"


def shown(facts: dict[str, Any]) -> str:
    stream = StringIO()
    Console(file=stream, width=200).print(format_status(ASIDE | facts))
    return stream.getvalue()


def test_status_has_a_line_for_each_pillow_and_every_reason() -> None:
    live = TailStatus(
        pillow="cases",
        source="couch/cases",
        state=State.LIVE,
        changes=1_200_000,
        pending=0,
        checkpoint_age_seconds=4,
    )
    failed = TailStatus(
        pillow="forms",
        source="couch/forms",
        state=State.FAILED,
        reason="it is [gone]. Remedy: reset",
        pass_number=3,
        dead_letters=2,
        pipeline_changed_at=1_700_000_000.0,
    )
    text = shown(
        {"running": True, "pid": 7, "up_seconds": 61.0, "pillows": [facts_of(live), facts_of(failed)]}
    )

    assert "pillowd is running for 1m 1s, pid 7" in text
    assert "1,200,000" in text
    assert "4s ago" in text
    assert "failed (pass 3)" in text
    assert "forms: it is [gone]. Remedy: reset" in text
    assert "rows from before 2023-11-14 22:13:20Z were made by an older filter or transform" in text


def test_status_says_when_no_daemon_runs() -> None:
    assert "not running" in shown({"running": False, "pid": None, "up_seconds": None, "pillows": []})


def test_a_summary_counts_states() -> None:
    assert summary([]) == "no pillows"
    assert summary([State.LIVE]) == "1 pillow: 1 live"
    assert summary([State.FAILED, State.LIVE, State.LIVE]) == "3 pillows: 2 live, 1 failed"


@pytest.mark.parametrize(
    ("comparison", "verdict", "remark"),
    [
        ({"differences": {"warehouse": {"missing": 0}}}, "equal", ""),
        (
            {"differences": {"warehouse": {"missing": 2, "stale": 0, "extra": 1}}},
            "3 differ",
            (
                "cases: differences with the source at 2023-11-14 22:13:20Z: warehouse: 2 missing, 1 extra. "
                "Remedy: `pillowd verify cases@couch/cases --repair`"
            ),
        ),
        (
            {"repaired": 4},
            "equal",
            "cases: 4 documents differed from the source at 2023-11-14 22:13:20Z; repaired",
        ),
        (
            {"reason": "it is [away]"},
            "failed",
            "cases: the comparison with the source at 2023-11-14 22:13:20Z failed: it is [away]",
        ),
    ],
)
def test_the_last_comparison_with_the_source_is_told(
    comparison: dict[str, Any], verdict: str, remark: str
) -> None:
    status = TailStatus(pillow="cases", source="couch/cases", state=State.LIVE)
    text = shown({"running": True, "pid": 7, "up_seconds": 61.0, "pillows": [facts_of(status, **comparison)]})
    assert "verified" in text
    assert any(line.rstrip().endswith(f"  {verdict}") for line in text.splitlines())
    assert remark in text
    without = shown({"running": True, "pid": 7, "up_seconds": 61.0, "pillows": [facts_of(status)]})
    assert "verified" not in without
