"""The tables that a run and a soak leave in the documentation."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.process import ROOT
from tests.chaos.faults import FAULTS
from tests.chaos.oracle import KINDS
from tests.chaos.plan import ENDS, Plan
from tests.chaos.score import Score, p99
from tests.chaos.soak import Soaked
from tests.chaos.stage import REPLAY_BOUND

#: Where they are.
PAGE = ROOT / "docs/explanation/no-loss.md"


def table(score: Score, plan: Plan, *, seed: int, seconds: float, red: str = "") -> str:
    """A run in Markdown; `red` says why it failed, if it did."""
    facts = [
        *([("**red**", red)] if red else []),
        ("cycles", f"{score.cycles} in {seconds / 60:.1f} min, seed {seed}"),
        ("when, what, where", _where()),
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
    lines = [*_listed(facts), ""]
    lines += ["| fault or end | drawn | felt |", "|---|--:|--:|"]
    lines += [f"| {name} | {score.drawn[name]} | {score.hit[name]} |" for name in [*plan.faults, *ENDS]]
    lines += [f"| {name} | not on this machine | |" for name in FAULTS if name not in plan.faults]
    return "\n".join(lines)


def soak_table(soaked: Soaked, score: Score, *, seed: int) -> str:
    """A soak in Markdown."""
    felt = f"{sum(score.hit.values())} felt of {sum(score.drawn.values())}"
    facts = [
        ("soak", f"{soaked.minutes:g} min, seed {seed}"),
        ("when, what, where", _where()),
        ("changes", f"{score.changes:,} to {score.documents:,} documents"),
        ("faults", felt),
        *((name, f"{early:g} early, {late:g} late") for name, early, late in soaked.figures()),
        *((kind, str(score.verdict.counts[kind])) for kind in KINDS),
    ]
    return "\n".join(_listed(facts))


def put(page: Path, text: str, *, mark: str = "run") -> None:
    """Puts a table into the page, between its marks."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _where() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{time.strftime('%Y-%m-%d')}, {commit}, {os.cpu_count()} cores, {platform.machine()}"


def _listed(facts: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts)]


def _spread(counts: list[int]) -> str:
    found = sorted(counts) or [0]
    return f"median {found[len(found) // 2]}, most {found[-1]}, in all {sum(found)}"


def _seconds(taken: list[float]) -> str:
    found = sorted(taken) or [0.0]
    return f"median {found[len(found) // 2]:.2f} s, p99 {p99(found):.2f} s"
