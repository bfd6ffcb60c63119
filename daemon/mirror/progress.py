"""How a mirror's progress is told: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from daemon.cli.formatting import format_duration
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

#: How often a line is written where there is no terminal.
LINE_SECONDS = 5.0


#: The bar's rate is that of the last seconds.
PACE_SECONDS = 30.0


class Pace:
    """How fast a count grows. Rich measures it, too, but begins anew with every new total, and ours moves.

    Args:
        clock: for the time between two counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """Takes the count as it is now."""
        now = self._clock.monotonic()
        self._counts.append((now, count))
        while len(self._counts) > 1 and self._counts[1][0] <= now - PACE_SECONDS:
            self._counts.popleft()

    @property
    def per_second(self) -> float | None:
        """The rate; None until a second has passed."""
        if not self._counts:
            return None
        (began, first), (now, last) = self._counts[0], self._counts[-1]
        return (last - first) / (now - began) if now - began >= 1 else None


def rate(per_second: float | None) -> str:
    """A rate for people."""
    return "-/s" if per_second is None else f"{per_second:,.0f}/s"


class MirrorProgress:
    """Tells how far a mirror is; a context manager.

    Args:
        console: where it is told.
        clock: for the rate.
    """

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._pace = Pace(clock)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said_at = clock.monotonic()
        self._said: tuple[int, str] | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:,.0f} done"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[left]} left"),
                TextColumn("{task.fields[to_go]} to go"),
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

    def say(self, text: str) -> None:
        """Writes a line for good; a bar goes on below it."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _move(self, status: TailStatus) -> None:
        if self._bar is None:
            return
        # What an earlier run did is no work of this one: the rate begins at what is there.
        self._pace.add(status.changes)
        speed, left = self._pace.per_second, status.pending
        if self._task is None:
            self._task = self._bar.add_task("", rate="", left="", to_go="")
        self._bar.update(
            self._task,
            description=str(status.state) + (f" ({status.reason})" if status.reason else ""),
            total=None if left is None else status.changes + left,
            completed=status.changes,
            rate=rate(speed),
            left="-" if left is None else f"{left:,}",
            to_go=format_duration(left / speed) if left is not None and speed else "-",
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
        eta = f", {format_duration(status.pending / speed)} to go" if speed and status.pending else ""
        reason = f": {status.reason}" if status.reason and status.state is not State.LIVE else ""
        self.say(f"{text}: {status.changes:,} changes{pace}{left}{eta}{reason}")
        self._said_at, self._said = now, (status.changes, text)
