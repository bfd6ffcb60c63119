"""How `pillowd status` and its kin look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

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
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

#: Tokens are up to 4 kB long; people recognise them by their beginning.
_SEQ_CHARACTERS = 16


def duration(seconds: float | None) -> str:
    """A duration in its two greatest units: `3h 12m`."""
    if seconds is None:
        return "-"
    rest = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def moment(wall_seconds: float | None) -> str:
    """A point in time in UTC: `2026-11-21 09:07:20Z`."""
    if not wall_seconds:
        return "-"
    return datetime.fromtimestamp(wall_seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def short_seq(seq: object) -> str:
    """The beginning of a token."""
    text = "-" if seq is None else str(seq)
    return text if len(text) <= _SEQ_CHARACTERS else f"{text[:_SEQ_CHARACTERS]}…"


def table(*columns: str) -> Table:
    """An empty table in the style of all commands; a column named `>x` is aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return made


def report(status: Mapping[str, Any]) -> RenderableType:
    """What the call `status` returned, for people."""
    pillows: Sequence[Mapping[str, Any]] = status["pillows"]
    made = table("pillow", "source", "state", ">behind", ">changes", ">saved", ">dead", ">restarts")
    for pillow in pillows:
        made.add_row(*_row(pillow))
    return Group(_headline(status), made, *_remarks(pillows))


def show(renderable: RenderableType) -> None:
    """Prints to standard output, as wide as it needs where no terminal says otherwise."""
    console = Console()
    Console(width=None if console.is_terminal else 200, highlight=False).print(renderable)


def _headline(status: Mapping[str, Any]) -> str:
    if not status["running"]:
        return "pillowd is [red]not running[/]; this is what it left on disk"
    return f"pillowd is [green]running[/] for {duration(status['up_seconds'])}, pid {status['pid']}"


def _row(pillow: Mapping[str, Any]) -> list[str]:
    state = State(pillow["state"])
    shown = f"[{_COLOURS[state]}]{state}[/]"
    if pillow["pass_number"] is not None:
        shown += f" (pass {pillow['pass_number']})"
    saved = pillow["checkpoint_age_seconds"]
    return [
        escape(pillow["pillow"]),
        escape(pillow["source"]),
        shown,
        "-" if pillow["pending"] is None else f"{pillow['pending']:,}",
        f"{pillow['changes']:,}",
        "-" if saved is None else f"{duration(saved)} ago",
        str(pillow["dead_letters"]),
        str(pillow["restarts"]),
    ]


def _remarks(pillows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for pillow in pillows:
        if pillow["reason"]:
            yield f"[bold]{escape(pillow['pillow'])}[/]: {escape(pillow['reason'])}"
        changed_at = pillow["pipeline_changed_at"]
        if changed_at is not None:
            made_by = f"rows from before {moment(changed_at)} were made by an older filter or transform"
            yield f"[bold]{escape(pillow['pillow'])}[/]: {made_by}"
