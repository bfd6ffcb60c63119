"""The table that a run leaves in the documentation."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.oracle import KINDS
from tests.chaos.plan import ENDS, Plan
from tests.chaos.score import Score
from tests.chaos.stage import REPLAY_BOUND

_BEGIN, _END = "<!-- run: begin -->", "<!-- run: end -->"


def table(score: Score, plan: Plan, *, seed: int, seconds: float, red: str = "") -> str:
    """A run in Markdown; `red` says why it failed, if it did."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    facts = [
        *([("**red**", red)] if red else []),
        ("cycles", f"{score.cycles} in {seconds / 60:.1f} min, seed {seed}"),
        (
            "when, what, where",
            f"{time.strftime('%Y-%m-%d')}, {commit}, {os.cpu_count()} cores, {platform.machine()}",
        ),
        ("changes", f"{score.changes:,} to {score.documents:,} documents, {score.checks} comparisons"),
        *((kind, str(score.verdict.counts[kind])) for kind in KINDS),
        ("states written again after a kill", f"{_spread(score.replays)}; bound {REPLAY_BOUND}"),
        (
            "states written again after a clean stop",
            f"{sum(score.stop_replays)}, {len(score.stop_replays)} stops",
        ),
        ("stop", f"{_seconds(score.stop_seconds)}, {len(score.stop_seconds)} stops, under faults too"),
        ("start until all is equal", _seconds(score.recovery_seconds)),
        ("fresh write visible everywhere", _seconds(score.probe_seconds)),
        ("seen sometimes", ", ".join(f"{name} {count}" for name, count in score.seen().items())),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts), ""]
    lines += ["| fault or end | drawn | felt |", "|---|--:|--:|"]
    lines += [f"| {name} | {score.drawn[name]} | {score.hit[name]} |" for name in [*plan.faults, *ENDS]]
    lines += [f"| {name} | not on this machine | |" for name in FAULTS if name not in plan.faults]
    return "\n".join(lines)


def put(page: Path, text: str) -> None:
    """Puts a run's table into the page, between its marks."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


def _spread(counts: list[int]) -> str:
    found = sorted(counts) or [0]
    return f"median {found[len(found) // 2]}, most {found[-1]}, in all {sum(found)}"


def _seconds(taken: list[float]) -> str:
    found = sorted(taken) or [0.0]
    return f"median {found[len(found) // 2]:.2f} s, p99 {found[int(len(found) * 0.99)]:.2f} s"
