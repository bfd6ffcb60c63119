"""Line charts as SVG, side by side, readable on light and dark pages.

Numbers across grow tenfold, unless they begin with 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 28, 34, 40
COLOURS = ("#3b82f6", "#d97706", "#16a34a")
STYLE = (
    "text{font-size:12px;fill:#7a828e}.title{font-size:14px;font-weight:600}"
    ".frame{fill:none;stroke:#7a828e;stroke-width:1}.line{fill:none;stroke-width:2}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart.

    Attributes:
        title: what it shows, with the unit.
        lines: label -> x -> y.
        is_log: whether y grows tenfold, too; from 0 otherwise.
    """

    title: str
    lines: Mapping[str, Mapping[int, float]]
    is_log: bool = False


def draw(title: str, x_label: str, panels: Sequence[Panel]) -> str:
    """Return the charts as one picture.

    Args:
        title: for those who cannot see it.
        x_label: of each horizontal axis.
        panels: from left to right.
    """
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" role="img"'
        ' aria-labelledby="title" font-family="system-ui, -apple-system, \'Segoe UI\', sans-serif">'
    )
    parts = [
        head,
        f'<title id="title">{escape(title)}</title>',
        f"<style>{STYLE}</style>",
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">')
        parts += _draw_panel(panel, x_label)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _draw_panel(panel: Panel, x_label: str) -> Iterator[str]:
    ticks = sorted({x for line in panel.lines.values() for x in line})
    to_place = math.log10 if ticks[0] else float
    values = [y for line in panel.lines.values() for y in line.values()]
    low, high = _get_bounds(values, is_log=panel.is_log)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        begin, end = to_place(ticks[0]), to_place(ticks[-1])
        across = (to_place(x) - begin) / (end - begin or 1.0)
        scaled = (math.log10(y), math.log10(low), math.log10(high)) if panel.is_log else (y, low, high)
        up = (scaled[0] - scaled[1]) / (scaled[2] - scaled[1])
        return round(LEFT + across * (right - LEFT), 1), round(bottom - up * (bottom - TOP), 1)

    yield f'<text class="title" x="{LEFT}" y="18">{escape(panel.title)}</text>'
    yield f'<path class="frame" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    for tick in ticks:
        yield f'<text x="{place(tick, high)[0]}" y="{bottom + 16}" text-anchor="middle">{tick:,}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{bottom + 33}" text-anchor="middle">{escape(x_label)}</text>'
    for y in _get_ticks(low, high, is_log=panel.is_log):
        yield f'<text x="{LEFT - 6}" y="{place(ticks[0], y)[1] + 4}" text-anchor="end">{y:,g}</text>'
    named = zip(panel.lines.items(), COLOURS, strict=False)
    for number, ((label, line), colour) in enumerate(named, start=1):
        points = [place(x, y) for x, y in sorted(line.items())]
        path = "L".join(f"{x} {y}" for x, y in points)
        yield f'<path class="line" stroke="{colour}" d="M{path}"/>'
        for x, y in points:
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
        yield f'<text x="{LEFT + 8}" y="{TOP + 14 * number}" style="fill:{colour}">{escape(label)}</text>'


def _get_bounds(values: Sequence[float], *, is_log: bool) -> tuple[float, float]:
    """Return round numbers below and above all values."""
    if is_log:
        return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values) * 1.01))
    step = 10.0 ** math.floor(math.log10(max(values)))
    return 0.0, step * math.ceil(max(values) * 1.3 / step)


def _get_ticks(low: float, high: float, *, is_log: bool) -> list[float]:
    if is_log:
        return [low * 10.0**n for n in range(round(math.log10(high / low)) + 1)]
    return [high * n / 4 for n in range(5)]
