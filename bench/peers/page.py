"""The text and charts of a run of `make bench-peers` in the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.bounds import CLIENT_MICROS, CURL, find_bound
from bench.meter import Reading, median_of
from bench.report import describe, format_parts, format_readings
from docs.measured import ROOT, draw_bars, write_between_marks

PAGE = ROOT / "docs" / "explanation" / "speed.md"
IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"

LOAD, OURS, SCRIPT = "COPY alone", "pillowd into PostgreSQL", "ChangesFollower + psycopg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a run.

    Attributes:
        readings: of each participant, one for each round.
        parts: what `bench.peers.originals.compare` found.
        source: describes the CouchDB server.
        left_out: who could not be measured, and why; "" if all could.
        cores: of the machine.
    """

    readings: Sequence[Sequence[Reading]]
    parts: Mapping[str, Mapping[str, float]]
    source: str
    left_out: str
    cores: int

    @property
    def medians(self) -> list[Reading]:
        """The medians of each participant."""
        return [median_of(each) for each in self.readings]

    @property
    def programs(self) -> list[Reading]:
        """The medians of those that copy from CouchDB into PostgreSQL."""
        return [each for each in self.medians if each.name not in (CURL, LOAD)]

    def find(self, name: str) -> Reading:
        """Return the median of a participant."""
        return next(each for each in self.medians if each.name == name)


def write(figures: Figures) -> None:
    """Write tables and charts into the documentation, and the one sentence of the README."""
    write_between_marks(PAGE, format_page(figures), mark="peers")
    write_between_marks(README, format_sentence(figures), mark="speed")
    for name, title, values in list_charts(figures):
        (IMAGES / f"speed-{name}.svg").write_text(draw_bars(title, values))


def list_charts(figures: Figures) -> list[tuple[str, str, dict[str, float]]]:
    """Return name, title and bars of each chart."""
    programs = figures.programs
    return [
        ("rate", "Documents per second", {each.name: each.rate for each in programs}),
        ("cpu", "CPU of all processes, µs a document", {each.name: each.total_micros for each in programs}),
        ("memory", "Largest memory of the program, MiB", {each.name: each.peak_mib for each in programs}),
    ]


def format_sentence(figures: Figures) -> str:
    """Return the sentence of the README."""
    ours, script = figures.find(OURS), figures.find(SCRIPT)
    return (
        f"How fast: on {figures.cores} cores, {ours.rate:,.0f} documents of 500 bytes per second into "
        f"PostgreSQL, {ours.rate / script.rate:.1f} times as many as\na script of ChangesFollower and "
        "psycopg: `make bench-peers` ([other programs, and what bounds it](docs/explanation/speed.md))."
    )


def format_page(figures: Figures) -> str:
    """Return all that the page says of a run, in Markdown."""
    alt = {name: title for name, title, _ in list_charts(figures)}
    parts = [
        describe(figures.source, figures.readings),
        *(f"![{title}](../images/speed-{name}.svg)" for name, title in alt.items()),
        format_readings(figures.readings),
        _format_bound(figures),
        format_parts(figures.parts),
    ]
    if figures.left_out:
        parts.append(f"Not measured: {figures.left_out}.")
    return "\n\n".join(part for part in parts if part)


def _format_bound(figures: Figures) -> str:
    ours, read, load = figures.find(OURS), figures.find(CURL), figures.find(LOAD)
    others = [each for each in figures.programs if not each.name.startswith("pillowd")]
    times = ", ".join(f"{ours.rate / each.rate:.1f} times as fast as {each.name}" for each in others)
    bound = find_bound(read, load, "postgres", figures.cores)
    if bound is None:
        return f"pillowd was {times}."
    sending, storing = read.cpu_micros("couchdb"), load.cpu_micros("postgres")
    return (
        f"pillowd was {times}. A document cost CouchDB {sending:.0f} µs of CPU to send and PostgreSQL "
        f"{storing:.0f} µs to store. With {CLIENT_MICROS:.0f} µs for a client, {figures.cores} cores allow "
        f"at most {bound:,.0f} documents per second; pillowd reached {ours.rate / bound:.2f} of that."
    )
