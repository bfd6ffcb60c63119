"""Readings and shares as Markdown, for the terminal and for the documentation."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from bench.bounds import Share
from bench.meter import Reading, median_of
from bench.servers import PID
from docs.measured import describe_run, format_table

#: What processes are called in a table's head.
PROCESSES = {
    "client": "own",
    "couchdb": "CouchDB",
    "postgres": "PostgreSQL",
    "elasticsearch": "Elasticsearch",
    "opensearch": "OpenSearch",
}


def describe(servers: str, readings: Sequence[Sequence[Reading]]) -> str:
    """Return what was measured, where and when, in a line.

    Args:
        servers: describes them.
        readings: of each participant, one for each round.
    """
    tools = [f"Python {platform.python_version()}"]
    if node := shutil.which("node"):
        done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
        tools.append(f"Node.js {done.stdout.strip().removeprefix('v')}")
    return (
        f"{describe_run()}. {servers}, {', '.join(tools)}. {readings[0][0].docs:,} documents, medians of "
        f"{len(readings[0])} rounds; CPU in microseconds per document, memory of the program itself."
    )


def format_readings(readings: Sequence[Sequence[Reading]]) -> str:
    """Return the medians of each participant, with the range of its rates."""
    measured = [name for name in PROCESSES if name in readings[0][0].cpu_seconds]
    head = ["", "per second", "least-most", *(PROCESSES[name] for name in measured), "all", "MiB"]
    rows = []
    for runs in readings:
        middle, rates = median_of(runs), [each.rate for each in runs]
        rows.append(
            [
                middle.name,
                f"{middle.rate:,.0f}",
                f"{min(rates):,.0f}-{max(rates):,.0f}",
                *(f"{middle.cpu_micros(name):.1f}" for name in measured),
                f"{middle.total_micros:.1f}",
                f"{middle.peak_mib:,.0f}",
            ]
        )
    return format_table(head, rows)


def format_shares(shares: Sequence[Share]) -> str:
    """Return how much of the bound is reached, compared with the required share."""
    head = ["pillowd into", "per second", "bound", "of the bound", "asked", "of curl"]
    rows = []
    for share in shares:
        known = share.bound is not None
        asked = (
            "" if share.target.bar is None else f"{share.target.bar} {'met' if share.is_met else 'NOT MET'}"
        )
        rows.append(
            [
                share.target.name,
                f"{share.rate:,.0f}",
                f"{share.bound:,.0f}" if known else "?",
                f"{share.of_bound:.3f}" if known else "?",
                asked,
                f"{share.of_curl:.3f}",
            ]
        )
    table = format_table(head, rows)
    if any(share.bound is None for share in shares):
        return f"{table}\n\nWithout CouchDB's CPU there is no bound: name its process in {PID}."
    return table


def format_parts(parts: Mapping[str, Mapping[str, float]]) -> str:
    """Return the seconds of parts and of the packages that they replace; "" if there are none."""
    rows = [
        [what, f"{seconds['ours']:.2f}", f"{seconds['original']:.2f}", f"{seconds['ratio']:.2f}"]
        for what, seconds in parts.items()
        if "ratio" in seconds
    ]
    return format_table(["part", "ours, s", "original, s", "times as fast"], rows) if rows else ""
