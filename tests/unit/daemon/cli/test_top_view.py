"""The screen of `pillowd top`."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from daemon.cli.top_view import TopView, draw_bars
from pillows.runtime.status import State


def facts(pillow: str, **more: Any) -> dict[str, Any]:
    return {
        "pillow": pillow,
        "source": "couch/x",
        "state": "live",
        "reason": "",
        "pending": 0,
        "lag_seconds": 0.0,
        "changes_per_second": 2.0,
        "seconds_to_go": None,
        "backfill": None,
        "rebuild": None,
        "dead_letters": 0,
        "transports": [{"delivered_at": 990.0}],
        **more,
    }


def view(*pillows: dict[str, Any]) -> TopView:
    made = TopView()
    daemon = {"version": "9.9", "up_seconds": 60.0, "at": 1000.0}
    made.apply({"complete": True, "pillows": pillows, "gone": [], "daemon": daemon}, 5000.0)
    return made


def shown(of: TopView, *, wall: float = 5010.0, lines: int = 40, width: int = 200) -> list[str]:
    stream = StringIO()
    Console(file=stream, width=width).print(of.render(wall, lines=lines, width=width))
    return stream.getvalue().splitlines()


def test_the_worst_come_first_with_their_reason() -> None:
    bad = facts(
        "bad", state="failed", reason="it is [gone] \u202e. Remedy: `pillowd restart bad`", lag_seconds=75.0
    )
    lines = shown(view(facts("good"), bad))
    assert lines[0] == "pillowd 9.9, up 1m 10s: 1 failed, 1 live"
    rows = [line.split() for line in lines if "couch/x" in line]
    assert [row[1] for row in rows] == ["bad", "good"]
    assert " ".join(rows[0]).endswith(r"1m 15s 2 20s ago 0 it is [gone] \u202e.")


def test_changes_are_merged_and_what_is_gone_goes() -> None:
    of = view(facts("a"), facts("b"))
    of.apply(
        {
            "complete": False,
            "pillows": [{"pillow": "a", "source": "couch/x", "pending": 7}],
            "gone": ["b@couch/x"],
        },
        0,
    )
    rows = [line.split() for line in shown(of) if "couch/x" in line]
    assert [(row[1], row[3]) for row in rows] == [("a", "7")]


def test_a_screen_that_is_too_low_counts_the_rest() -> None:
    lines = shown(view(*(facts(f"p{number:02}") for number in range(30))), lines=16)
    assert len(lines) <= 16
    assert "20 more. q quits" in lines[-1]


def test_a_narrow_screen_keeps_each_pillow_on_a_line() -> None:
    lines = shown(view(facts("p" * 90, reason="r" * 300), facts("q")), width=80)
    assert len(lines) <= 8


def test_a_lost_connection_is_said() -> None:
    of = view(facts("a"))
    of.lost = "nobody answers on [x]"
    assert shown(of)[0] == "no connection to pillowd: nobody answers on [x]"
    assert TopView().render(0, lines=10)


def test_a_catch_up_says_its_time_to_go_and_every_state_has_a_place() -> None:
    of = view(*(facts(state, state=state, seconds_to_go=400.0) for state in State))
    lines = shown(of)
    assert sum("6m 40s to go" in line for line in lines) == 1
    assert len([line for line in lines if "couch/x" in line]) == len(State)


def test_a_backfill_beside_a_live_pillow_says_its_time_to_go() -> None:
    sent = {"state": "running", "documents": 90, "done": 30, "per_second": 2.0, "seconds_to_go": 30.0}
    text = "\n".join(shown(view(facts("a", state="live", backfill=sent))))
    assert "backfill running: 30 of 90 documents, 2/s, 30s to go" in text


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([None, 0, 0], " ▁▁"), ([0, 1, 50, 100], "▁▂▅█"), ([7], "█")],
)
def test_bars(values: list[int | None], bars: str) -> None:
    assert draw_bars(values) == bars


def test_samples_follow_the_pillows() -> None:
    of = view(facts("a", pending=4))
    for _ in range(30):
        of.sample()
    assert "█" * 24 in "\n".join(shown(of))


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_long_names_and_reasons_hide_no_state(width: int) -> None:
    long = facts("n" * 63, source="couch/" + "d" * 238, state="backing-off", reason="why " * 200)
    lines = shown(view(long, facts("short")), width=width)
    assert max(map(len, lines)) <= width
    assert [line.split()[:1] for line in lines if "n" * 12 in line or "short" in line] == [
        ["backing-off"],
        ["live"],
    ]
    assert ("why" in "".join(lines)) is (width >= 100)
