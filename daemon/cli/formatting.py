"""Format durations, times, tables and the status for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from daemon.printable import printable_lines
from daemon.rebuilds.record import COMING, RebuildState
from pillows.runtime.status import State

_COLOURS = {
    State.LIVE: "green",
    State.CATCHING_UP: "cyan",
    State.STARTING: "cyan",
    State.BACKING_OFF: "yellow",
    State.PAUSED: "yellow",
    State.FAILED: "red",
    State.STOPPED: "dim",
}
_STATUS_COLUMNS = (
    *("pillow", "source", "state", ">behind", ">lag", ">changes/s", ">to go"),
    *(">changes", ">saved", ">dead", ">restarts"),
)
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

#: Characters shown of a token; tokens have up to 4 kB, and the beginning is enough to distinguish them.
_SEQ_CHARACTERS = 16


def format_key(facts: Mapping[str, Any]) -> str:
    """Return the key of a pillow's facts, as commands take it: `PILLOW@CONNECTION/DATABASE`."""
    return f"{facts['pillow']}@{facts['source']}"


def format_duration(seconds: float | None) -> str:
    """Return a duration in its two largest units: `3h 12m`."""
    if seconds is None:
        return "-"
    rest = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def format_rate(per_second: float | None) -> str:
    """Return a rate; with one decimal below ten, so that a slow pillow does not look idle."""
    if per_second is None:
        return "-"
    if 0 < per_second < 0.05:
        return "<0.1"
    return f"{per_second:.1f}" if per_second < 9.95 and per_second % 1 else f"{per_second:,.0f}"


def format_count(value: int | None) -> str:
    """Return a number with its thousands grouped."""
    return "-" if value is None else f"{value:,}"


def format_state(state: State) -> str:
    """Return a state in its colour."""
    return f"[{_COLOURS[state]}]{state}[/]"


def format_time(wall_seconds: float | None) -> str:
    """Return a wall clock time in UTC: `2026-11-21 09:07:20Z`."""
    if not wall_seconds:
        return "-"
    return datetime.fromtimestamp(wall_seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def shorten_seq(seq: object) -> str:
    """Return the beginning of a token."""
    text = "-" if seq is None else str(seq)
    return text if len(text) <= _SEQ_CHARACTERS else f"{text[:_SEQ_CHARACTERS]}…"


class _PrintableTable(Table):
    def add_row(self, *cells: RenderableType | None, **style: Any) -> None:
        """Add a row, with its texts as `printable` shows them."""
        super().add_row(*(printable_lines(c) if isinstance(c, str) else c for c in cells), **style)


def new_grid() -> Table:
    """Return an empty table without headings, for names and values."""
    made = _PrintableTable.grid(padding=(0, 2))
    assert isinstance(made, _PrintableTable)  # noqa: S101  rich makes the class it is called on
    return made


def new_table(*columns: str) -> Table:
    """Return an empty table in the style of all commands; align a column named `>x` to the right."""
    made = _PrintableTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # However long the other columns are: a state is one word that must be seen.
        width = max(map(len, State)) if column == "state" else None
        made.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            min_width=width,
        )
    return made


def format_status(status: Mapping[str, Any]) -> RenderableType:
    """Return the answer of the call `status`, for people."""
    pillows: Sequence[Mapping[str, Any]] = status["pillows"]
    are_compared = any(pillow["comparison"] for pillow in pillows)
    made = new_table(*_STATUS_COLUMNS, *(["verified"] if are_compared else []))
    for pillow in pillows:
        made.add_row(*_row(pillow), *([_format_verdict(pillow["comparison"])] if are_compared else []))
    return Group(_format_headline(status), made, *_remarks(pillows), *_daemon_remarks(status))


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return how many databases there are, and how many are in each state."""
    total = sum(counts.values())
    parts = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    return f"{total:,} database{'' if total == 1 else 's'}{f': {parts}' if parts else ''}"


def print_table(renderable: RenderableType) -> None:
    """Print to standard output; 200 columns wide if that is not a terminal."""
    console = Console()
    Console(width=None if console.is_terminal else 200, highlight=False).print(renderable)


def _format_headline(status: Mapping[str, Any]) -> str:
    if not status["running"]:
        return "pillowd is [red]not running[/]; this is its saved state"
    return f"pillowd is [green]running[/] for {format_duration(status['up_seconds'])}, pid {status['pid']}"


def _row(pillow: Mapping[str, Any]) -> list[str]:
    state = State(pillow["state"])
    shown = format_state(state)
    if pillow["pass_number"] is not None:
        shown += f" (pass {pillow['pass_number']})"
    saved = pillow["checkpoint_age_seconds"]
    return [
        escape(pillow["pillow"]),
        escape(pillow["source"]),
        shown,
        format_count(pillow["pending"]),
        format_duration(pillow["lag_seconds"]),
        format_rate(pillow["changes_per_second"]),
        format_duration(pillow["seconds_to_go"]) if state is State.CATCHING_UP else "-",
        format_count(pillow["changes"]),
        "-" if saved is None else f"{format_duration(saved)} ago",
        str(pillow["dead_letters"]),
        str(pillow["restarts"]),
    ]


def _remarks(pillows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for pillow in pillows:
        if pillow["databases"] is not None:
            yield f"[bold]{escape(pillow['pillow'])}[/]: {describe_counts(pillow['databases'])}"
        if pillow["reason"]:
            yield f"[bold]{escape(pillow['pillow'])}[/]: {escape(printable_lines(pillow['reason']))}"
        changed_at = pillow["pipeline_changed_at"]
        if changed_at is not None:
            text = f"rows from before {format_time(changed_at)} were made by an older filter or transform"
            yield f"[bold]{escape(pillow['pillow'])}[/]: {text}"
        if text := describe_work(pillow):
            yield f"[bold]{escape(pillow['pillow'])}[/]: {escape(printable_lines(text))}"
        if text := _describe_comparison(pillow):
            yield f"[bold]{escape(pillow['pillow'])}[/]: {escape(printable_lines(text))}"


def describe_work(pillow: Mapping[str, Any]) -> str:
    """Return the progress of a pillow's backfill and rebuild; "" if none is running."""
    parts, backfill, rebuild = [], pillow["backfill"], pillow["rebuild"]
    if backfill is not None:
        of_all = "" if backfill["documents"] is None else f" of {backfill['documents']:,}"
        text = f"backfill {backfill['state']}: {backfill['done']:,}{of_all} documents"
        if backfill["state"] == "running":
            rate, left = format_rate(backfill["per_second"]), format_duration(backfill["seconds_to_go"])
            text += f", {rate}/s, {left} to go"
        parts.append(text)
    if rebuild is not None and rebuild["state"] in COMING | {RebuildState.SWITCHING, RebuildState.DROPPING}:
        reason = f": {rebuild['reason']}" if rebuild["reason"] else ""
        parts.append(f"rebuild {rebuild['state']}{reason}")
    return "; ".join(parts)


def _format_verdict(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return "-"
    if comparison["reason"]:
        return "[yellow]failed[/]"
    different = _count_differences(comparison)
    return f"[red]{format_count(different)} differ[/]" if different else "[green]equal[/]"


def _describe_comparison(pillow: Mapping[str, Any]) -> str:
    """Return the result of the last comparison; "" if all was equal, or if there was none."""
    comparison = pillow["comparison"]
    if comparison is None:
        return ""
    when = format_time(comparison["at"])
    if comparison["reason"]:
        return f"the comparison with the source at {when} failed: {comparison['reason']}"
    if _count_differences(comparison):
        found = "; ".join(
            f"{transport}: "
            + ", ".join(f"{format_count(count)} {kind}" for kind, count in kinds.items() if count)
            for transport, kinds in comparison["differences"].items()
            if any(kinds.values())
        )
        key = format_key(pillow)
        return f"differences with the source at {when}: {found}. Remedy: `pillowd verify {key} --repair`"
    if comparison["repaired"]:
        return (
            f"{format_count(comparison['repaired'])} documents differed from the source at {when}; repaired"
        )
    return ""


def _count_differences(comparison: Mapping[str, Any]) -> int:
    return sum(sum(kinds.values()) for kinds in comparison["differences"].values())


def _daemon_remarks(status: Mapping[str, Any]) -> Iterator[str]:
    for listener in status["listeners"]:
        if listener["problem"]:
            yield f"[bold]{escape(listener['address'])}[/]: {escape(printable_lines(listener['problem']))}"
    for act in status["unfinished_acts"]:
        named = f"{act['act']} of {act['pillow'] or 'the daemon'}"
        text = f"{named} was cut short by a crash; look whether it is to be done again"
        yield f"[bold]{escape(str(act['at']))}[/]: {escape(printable_lines(text))}"
