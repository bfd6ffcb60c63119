"""`pillowd status`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from rich.live import Live

from daemon.cli import control_client
from daemon.cli.exit_codes import ExitCode
from daemon.cli.formatting import format_key, format_status, format_time, print_table
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json, print_json_line
from daemon.printable import printable
from daemon.process import signals
from pillows.runtime.status import State

#: Interval of `status --watch`.
_WATCH_SECONDS = 1.0


@click.command()
@common_options
@click.option(
    "--watch",
    is_flag=True,
    help="Refresh every second until interrupted. Into a pipe or file, print a line for each change.",
)
@click.option("--running", is_flag=True, help="Exit with 75 if no daemon answers, for health checks.")
@click.option("--fail", is_flag=True, help="Exit with 1 if a pillow has failed, for cron and Nagios.")
def status(*, config_path: Path, as_json: bool, watch: bool, running: bool, fail: bool) -> ExitCode:
    """Show the state, lag and last checkpoint of every pillow.

    This works even if the configuration file now has problems.
    """
    if watch and (running or fail):
        raise click.UsageError("--watch excludes --running and --fail.")
    open_control = control_client.find_control(config_path)

    def get_status() -> dict[str, Any]:
        with open_control() as call:
            return control_client.get_status(call)

    if not watch:
        facts = get_status()
        print_json(facts) if as_json else print_table(format_status(facts))
        if running and not facts["running"]:
            return ExitCode.UNREACHABLE
        has_failed = any(each["state"] == State.FAILED for each in facts["pillows"])
        return ExitCode.FAILED if fail and has_failed else ExitCode.OK
    with (
        signals.track_sigint() as interrupted,
        suppress(KeyboardInterrupt),
        _open_display(as_json=as_json) as show_it,
    ):
        while not interrupted.is_set():
            show_it(get_status())
            interrupted.wait(_WATCH_SECONDS)
    return ExitCode.OK


@contextmanager
def _open_display(*, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield the function that shows each status: a JSON line, lines of changes, or a refreshed table."""
    if as_json:
        yield print_json_line
        return
    if not sys.stdout.isatty():
        yield ChangePrinter().show
        return
    with Live(auto_refresh=False, screen=True) as live:
        yield lambda facts: live.update(format_status(facts), refresh=True)


class ChangePrinter:
    """Prints a line for each pillow whose state has changed, beginning with the present one."""

    def __init__(self) -> None:
        self._printed: dict[str, tuple[Any, ...]] = {}

    def show(self, facts: Mapping[str, Any]) -> None:
        """Print what differs from the status before."""
        for pillow in facts["pillows"]:
            key = format_key(pillow)
            shown = tuple(pillow[name] for name in ("state", "reason", "dead_letters", "restarts"))
            if self._printed.get(key) != shown:
                self._printed[key] = shown
                echo(f"{format_time(time.time())} {_format_line(key, pillow)}")
        sys.stdout.flush()


def _format_line(key: str, pillow: Mapping[str, Any]) -> str:
    behind = "" if pillow["pending"] is None else f", {pillow['pending']:,} behind"
    counts = f"{pillow['changes']:,} changes{behind}, {pillow['dead_letters']} dead letters"
    reason = f": {printable(pillow['reason'])}" if pillow["reason"] else ""
    return f"{key}: {pillow['state']}, {counts}, {pillow['restarts']} restarts{reason}"
