"""Show a mirror's progress: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from daemon.cli.formatting import format_duration
from daemon.printable import printable, printable_lines
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

#: Interval of lines without a terminal.
LINE_SECONDS = 5.0

#: Period over which the rate is measured.
RATE_SECONDS = 30.0


class RateMeter:
    """Measures how fast a count grows. Rich does too, but it starts again whenever the total changes.

    Args:
        clock: for the time between two counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """Add the current count."""
        now = self._clock.monotonic()
        self._counts.append((now, count))
        while len(self._counts) > 1 and self._counts[1][0] <= now - RATE_SECONDS:
            self._counts.popleft()

    @property
    def per_second(self) -> float | None:
        """Counts per second; None until a second has passed."""
        if not self._counts:
            return None
        (began, first), (now, last) = self._counts[0], self._counts[-1]
        return (last - first) / (now - began) if now - began >= 1 else None


def format_rate(per_second: float | None) -> str:
    """Return a rate for people."""
    return "-/s" if per_second is None else f"{per_second:,.0f}/s"


class MirrorProgress:
    """Shows the progress of a mirror; a context manager.

    Args:
        console: where to show it.
        clock: for the rate.
    """

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._rate = RateMeter(clock)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._printed_at = clock.monotonic()
        self._printed: tuple[int, str] | None = None
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
        """Show the current status."""
        if self._bar is None:
            self._print_line(status)
        else:
            self._move_bar(self._bar, status)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(printable_lines(text), highlight=False, markup=False, soft_wrap=True)

    def _move_bar(self, bar: Progress, status: TailStatus) -> None:
        # The changes of earlier runs do not count for the rate.
        self._rate.add(status.changes)
        speed, left = self._rate.per_second, status.pending
        if self._task is None:
            self._task = bar.add_task("", rate="", left="", to_go="")
        bar.update(
            self._task,
            description=str(status.state)
            + (f" ({escape(printable(status.reason))})" if status.reason else ""),
            total=None if left is None else status.changes + left,
            completed=status.changes,
            rate=format_rate(speed),
            left="-" if left is None else f"{left:,}",
            to_go=format_duration(left / speed) if left is not None and speed else "-",
        )

    def _print_line(self, status: TailStatus) -> None:
        now = self._clock.monotonic()
        seconds = now - self._printed_at
        before, state = self._printed or (status.changes, "")
        text = str(status.state)
        is_unchanged = status.changes == before and text == state
        if is_unchanged or (seconds < LINE_SECONDS and text == state):
            return
        speed = (status.changes - before) / seconds if seconds >= 1 and self._printed else None
        rate = f", {format_rate(speed)}" if speed is not None else ""
        left = "" if status.pending is None else f", {status.pending:,} left"
        eta = f", {format_duration(status.pending / speed)} to go" if speed and status.pending else ""
        reason = f": {status.reason}" if status.reason and status.state is not State.LIVE else ""
        self.print(f"{text}: {status.changes:,} changes{rate}{left}{eta}{reason}")
        self._printed_at, self._printed = now, (status.changes, text)
