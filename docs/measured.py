"""Write what a run has measured into the documentation: tables between marks of a page, and bar charts."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]

#: Sizes of a chart in pixels.
_WIDTH, _LABEL, _BAR, _GAP, _HEAD = 760, 250, 22, 10, 40
#: Grey that can be read on white and on black, and two colours of bars.
_TEXT, _OURS, _OTHERS = "#7a828e", "#3b82f6", "#9ca3af"


def write_between_marks(page: Path, text: str, *, mark: str = "run") -> None:
    """Replace what stands between two marks of a page.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, begins, rest = page.read_text().partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise ValueError(f"{page} lacks `{begin}` or `{end}`")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def describe_run() -> str:
    """Return the day, the commit and the machine; a commit whose code was changed is marked."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*.md", ":!*.svg")
    marked = f"{commit}-dirty" if changed else commit
    return f"{time.strftime('%Y-%m-%d')}, {marked}, {os.cpu_count()} cores, {platform.machine()}"


def _git(*words: str) -> str:
    """Return what git prints; nothing outside a repository."""
    command = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - it is git
    return done.stdout.strip()


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column is text, the others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw_bars(title: str, values: Mapping[str, float], *, ours: str = "pillowd") -> str:
    """Return an SVG with a bar for each value; labels that begin with `ours` stand out."""
    height = _HEAD + len(values) * (_BAR + _GAP)
    longest = _WIDTH - _LABEL - 80
    top = max(values.values(), default=1.0) or 1.0
    described = f"{title}: " + ", ".join(f"{label} {value:,.0f}" for label, value in values.items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"',
        'aria-labelledby="title" font-family="system-ui, sans-serif" font-size="14">',
        f'<title id="title">{escape(described)}</title>',
        f'<text x="0" y="18" fill="{_TEXT}" font-weight="600">{escape(title)}</text>',
    ]
    for number, (label, value) in enumerate(values.items()):
        y = _HEAD + number * (_BAR + _GAP)
        wide = value / top * longest
        colour = _OURS if label.startswith(ours) else _OTHERS
        lines += [
            f'<text x="{_LABEL - 8}" y="{y + 16}" fill="{_TEXT}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{wide:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABEL + wide + 8:.1f}" y="{y + 16}" fill="{_TEXT}">{value:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
