"""What `pillowd top` shows: the pillows as the daemon's messages describe them, worst first."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from daemon.cli.formatting import (
    describe_work,
    format_count,
    format_duration,
    format_key,
    format_rate,
    format_state,
    new_table,
)
from daemon.printable import printable
from pillows.runtime.status import State

#: From worst to best.
STATES = (
    State.FAILED,
    State.BACKING_OFF,
    State.STOPPED,
    State.STARTING,
    State.PAUSED,
    State.CATCHING_UP,
    State.LIVE,
)
#: Samples of a pillow's lag, one per second.
SAMPLES = 24
_BARS = "▁▂▃▄▅▆▇█"
#: Width of the screen -> longest name that is shown, if sources are, and if bars are; the first that fits.
#: Databases have names of up to 238 characters.
_LAYOUTS = ((170, 28, True, True), (120, 18, True, False), (100, 18, False, False), (0, 14, False, False))
#: Lines of the screen that are not pillows: headline, table head with its rules, foot.
_OTHER_LINES = 6

Facts = dict[str, Any]


class TopView:
    """The pillows as they are known.

    Attributes:
        lost: why the daemon can't be reached; "" while it can.
    """

    def __init__(self) -> None:
        self.lost = "connecting"
        self._daemon: Facts = {}
        self._ahead = 0.0
        self._pillows: dict[str, Facts] = {}
        self._lags: dict[str, deque[int | None]] = {}

    def apply(self, message: Mapping[str, Any], wall: float) -> None:
        """Apply a `status` message of `/v1/events`, which has what changed.

        Args:
            message: its data.
            wall: wall-clock seconds here.
        """
        self.lost = ""
        if message["complete"]:
            self._pillows.clear()
        if "daemon" in message:
            self._daemon = message["daemon"]
            self._ahead = wall - self._daemon["at"]
        for facts in message["pillows"]:
            self._pillows.setdefault(format_key(facts), {}).update(facts)
        for key in message["gone"]:
            self._pillows.pop(key, None)

    def sample(self) -> None:
        """Remember the lag of every pillow; called once a second."""
        self._lags = {
            key: self._lags.get(key, deque([None] * SAMPLES, maxlen=SAMPLES)) for key in self._pillows
        }
        for key, facts in self._pillows.items():
            self._lags[key].append(facts["pending"])

    def render(self, wall: float, *, lines: int, width: int = 200, with_bars: bool = True) -> RenderableType:
        """Return the screen.

        Args:
            wall: wall-clock seconds here.
            lines: how many lines there are; pillows that do not fit are counted.
            width: how many characters a line has.
            with_bars: whether the terminal can show bars.
        """
        ordered = sorted(self._pillows.values(), key=_badness)
        shown = ordered[: max(1, lines - _OTHER_LINES)]
        table = self._table(shown, wall, width=width, with_bars=with_bars)
        left = len(ordered) - len(shown)
        foot = f"[dim]{f'{left} more. ' if left else ''}{'q quits' if with_bars else ''}[/]"
        return Group(self._headline(wall), table, foot)

    def _headline(self, wall: float) -> str:
        if self.lost:
            return f"[bold red]no connection to pillowd[/]: {escape(self.lost)}"
        counts = Counter(State(facts["state"]) for facts in self._pillows.values())
        states = ", ".join(f"{counts[state]} {format_state(state)}" for state in STATES if counts[state])
        up = self._daemon["up_seconds"] + wall - self._ahead - self._daemon["at"]
        return (
            f"[bold]pillowd[/] {self._daemon['version']}, up {format_duration(up)}: {states or 'no pillows'}"
        )

    def _table(self, shown: Sequence[Facts], wall: float, *, width: int, with_bars: bool) -> Table:
        _, name_width, has_source, has_bars = next(each for each in _LAYOUTS if width >= each[0])
        bars = (f"{SAMPLES} s",) if with_bars and has_bars else ()
        names = (
            "state",
            "pillow",
            *(("source",) if has_source else ()),
            ">behind",
            ">lag",
            *bars,
            ">changes/s",
            ">delivered",
            ">dead",
            "reason",
        )
        made = new_table(*names)
        for column in made.columns:
            column.no_wrap, column.overflow = True, "ellipsis"
            if column.header in {"pillow", "source"}:
                column.max_width = name_width
            elif column.header == "reason":
                column.ratio = 1  # what the others leave; else a long one would push them out
        made.expand = True
        for facts in shown:
            bars_of_it = (draw_bars(self._lags.get(format_key(facts), ())),) if bars else ()
            made.add_row(
                format_state(State(facts["state"])),
                escape(facts["pillow"]),
                *((escape(facts["source"]),) if has_source else ()),
                format_count(facts["pending"]),
                format_duration(facts["lag_seconds"]),
                *bars_of_it,
                format_rate(facts["changes_per_second"]),
                _format_delivery(facts, wall - self._ahead),
                format_count(facts["dead_letters"]),
                escape(_remark(facts)),
            )
        return made


def draw_bars(values: Sequence[int | None] | deque[int | None]) -> str:
    """Return a line of bars, the highest value as a full one; a space where nothing is known."""
    top = max((value for value in values if value is not None), default=0)
    steps = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[-(-value * steps // top) if top else 0] for value in values
    )


def _badness(facts: Mapping[str, Any]) -> tuple[int, int, str]:
    """Return the place in the list: by state, then by the digits of the lag, so that rows seldom move."""
    return STATES.index(State(facts["state"])), -len(str(int(facts["lag_seconds"] or 0))), format_key(facts)


def _format_delivery(facts: Mapping[str, Any], now: float) -> str:
    """Return the age of the last delivery, of the target that is worst off."""
    times = [each["delivered_at"] for each in facts["transports"]]
    if not times or None in times:
        return "-"
    return f"{format_duration(now - min(times))} ago"


def _remark(facts: Mapping[str, Any]) -> str:
    if facts["reason"]:
        return printable(str(facts["reason"]).partition(" Remedy: ")[0])
    if facts["state"] == State.CATCHING_UP and facts["seconds_to_go"]:
        return f"{format_duration(facts['seconds_to_go'])} to go"
    return printable(describe_work(facts).partition(" Remedy: ")[0])
