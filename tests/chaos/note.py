"""The tables of a run and of a soak, for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from docs.measured import describe_run
from tests.acceptance.process import ROOT
from tests.chaos.faults import FAULTS
from tests.chaos.oracle import KINDS
from tests.chaos.plan import ENDS, Plan
from tests.chaos.score import Score, p99
from tests.chaos.soak import SoakResult
from tests.chaos.stage import REPLAY_BOUND

#: The page with the tables.
PAGE = ROOT / "docs/explanation/no-loss.md"
README = ROOT / "README.md"


def format_table(score: Score, plan: Plan, *, seed: int, seconds: float, red: str = "") -> str:
    """Return the table of a run in Markdown; `red` says why it failed, if it did."""
    facts = [
        *([("**red**", red)] if red else []),
        ("cycles", f"{score.cycles} in {seconds / 60:.1f} min, seed {seed}"),
        ("when, what, where", describe_run()),
        ("changes", f"{score.changes:,} to {score.documents:,} documents, {score.checks} comparisons"),
        *((kind, str(score.verdict.counts[kind])) for kind in KINDS),
        ("states written again after a kill", f"{_format_counts(score.replays)}; bound {REPLAY_BOUND}"),
        (
            "states written again after a clean stop",
            f"{sum(score.stop_replays)}, {len(score.stop_replays)} stops",
        ),
        ("stop", f"{_format_seconds(score.stop_seconds)}, {len(score.stop_seconds)} stops, under faults too"),
        ("start until all is equal", _format_seconds(score.recovery_seconds)),
        ("fresh write visible everywhere", _format_seconds(score.probe_seconds)),
        ("seen sometimes", ", ".join(f"{name} {count}" for name, count in score.get_sometimes().items())),
    ]
    lines = [*_format_facts(facts), ""]
    lines += ["| fault or end | drawn | had an effect |", "|---|--:|--:|"]
    lines += [f"| {name} | {score.drawn[name]} | {score.hit[name]} |" for name in [*plan.faults, *ENDS]]
    lines += [f"| {name} | not on this machine | |" for name in FAULTS if name not in plan.faults]
    return "\n".join(lines)


def format_claim(score: Score) -> str:
    """Return what the README says of a run in which nothing was wrong."""
    return "\n".join(
        [
            f"How we know: `make chaos CYCLES={score.cycles}` crashed pillowd {score.cycles} times under",
            f"faults of network, servers and disk. After {score.changes:,} changes no document was",
            "missing, extra or stale in any target ([method and table](docs/explanation/no-loss.md)).",
        ]
    )


def format_soak_table(soaked: SoakResult, score: Score, *, seed: int) -> str:
    """Return the table of a soak in Markdown."""
    effective = f"{sum(score.hit.values())} took effect of {sum(score.drawn.values())}"
    facts = [
        ("soak", f"{soaked.minutes:g} min, seed {seed}"),
        ("when, what, where", describe_run()),
        ("changes", f"{score.changes:,} to {score.documents:,} documents"),
        ("faults", effective),
        *((name, f"{early:g} early, {late:g} late") for name, early, late in soaked.list_sizes()),
        *((kind, str(score.verdict.counts[kind])) for kind in KINDS),
    ]
    return "\n".join(_format_facts(facts))


def _format_facts(facts: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts)]


def _format_counts(counts: list[int]) -> str:
    found = sorted(counts) or [0]
    return f"median {found[len(found) // 2]}, most {found[-1]}, in all {sum(found)}"


def _format_seconds(taken: list[float]) -> str:
    found = sorted(taken) or [0.0]
    return f"median {found[len(found) // 2]:.2f} s, p99 {p99(found):.2f} s"
