"""How a mirror's progress is told: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from daemon.cli.tables import duration
from pillows.clock import Clock
from pillows.state import State, TailStatus

#: How often a line is written where there is no terminal.
LINE_SECONDS = 5.0


class RateColumn(ProgressColumn):
    """Changes a second."""

    def render(self, task: Task) -> Text:
        """The rate as the bar last measured it."""
        return Text(rate(task.speed))


def rate(per_second: float | None) -> str:
    """A rate for people."""
    return "-/s" if per_second is None else f"{per_second:,.0f}/s"


class MirrorProgress:
    """Tells how far a mirror is; a context manager.

    Args:
        console: where it is told.
        clock: for the rate of the lines.
    """

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said_at = clock.monotonic()
        self._said: tuple[int, str] | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f} done"),
                RateColumn(),
                TextColumn("{task.fields[left]} left"),
                TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, status: TailStatus) -> None:
        """Shows how it is now."""
        tell: Callable[[TailStatus], None] = self._line if self._bar is None else self._move
        tell(status)

    def _move(self, status: TailStatus) -> None:
        if self._bar is None:
            return
        left = status.pending
        total = None if left is None else status.changes + left
        text = str(status.state) + (f" ({status.reason})" if status.reason else "")
        if self._task is None:
            # What an earlier run did is no work of this one: the rate begins at what is there.
            self._task = self._bar.add_task(text, total=total, completed=status.changes, left="-")
        self._bar.update(
            self._task,
            description=text,
            total=total,
            completed=status.changes,
            left="-" if left is None else f"{left:,}",
        )

    def _line(self, status: TailStatus) -> None:
        now = self._clock.monotonic()
        seconds = now - self._said_at
        before, state = self._said or (status.changes, "")
        text = str(status.state)
        still = status.changes == before and text == state
        if still or (seconds < LINE_SECONDS and text == state):
            return
        speed = (status.changes - before) / seconds if seconds >= 1 and self._said else None
        pace = f", {rate(speed)}" if speed is not None else ""
        left = "" if status.pending is None else f", {status.pending:,} left"
        eta = f", {duration(status.pending / speed)} to go" if speed and status.pending else ""
        reason = f": {status.reason}" if status.reason and status.state is not State.LIVE else ""
        self._console.print(
            f"{text}: {status.changes:,} changes{pace}{left}{eta}{reason}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        self._said_at, self._said = now, (status.changes, text)
