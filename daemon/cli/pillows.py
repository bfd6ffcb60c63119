"""`pillowd status`, `pause`, `resume`, `restart`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from rich.live import Live

from daemon import signals
from daemon.cli import control_client
from daemon.cli.exit_codes import Exit
from daemon.cli.formatting import report, show
from daemon.cli.options import config_option, json_option, print_json
from daemon.config.load import load
from pillows.runtime.status import State

#: How often `status --watch` looks again.
_WATCH_SECONDS = 1.0
#: How long a command waits to see what it told done, and how often it looks.
_SETTLE_SECONDS = 30.0
_LOOK_SECONDS = 0.2


@click.command()
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Look again every second, until interrupted.")
@click.option("--running", is_flag=True, help="Fail (75) when no daemon answers; for health checks.")
def status(*, config_path: Path, as_json: bool, watch: bool, running: bool) -> Exit:
    """Shows how the pillows are: state, how far behind, when last saved."""
    config = load(config_path)

    def look() -> dict[str, Any]:
        with control_client.opened(config) as call:
            facts: dict[str, Any] = call("status")
        return facts

    if not watch:
        facts = look()
        print_json(facts) if as_json else show(report(facts))
        return Exit.UNREACHABLE if running and not facts["running"] else Exit.OK
    with signals.interrupts() as interrupted, suppress(KeyboardInterrupt), _shown(as_json=as_json) as show_it:
        while not interrupted.is_set():
            show_it(look())
            interrupted.wait(_WATCH_SECONDS)
    return Exit.OK


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What shows one look after the other: a line each for programs, in one place for people."""
    if as_json:
        yield lambda facts: click.echo(json.dumps(facts))
        return
    with Live(auto_refresh=False, screen=True) as live:
        yield lambda facts: live.update(report(facts), refresh=True)


@click.command()
@click.argument("key")
@config_option
@json_option
def pause(key: str, config_path: Path, as_json: bool) -> None:
    """Stops the pillow KEY until `resume`, also over restarts of the daemon."""
    _tell("pause", key, config_path, as_json=as_json)


@click.command()
@click.argument("key")
@config_option
@json_option
def resume(key: str, config_path: Path, as_json: bool) -> None:
    """Ends a pause of the pillow KEY."""
    _tell("resume", key, config_path, as_json=as_json)


@click.command()
@click.argument("key")
@config_option
@json_option
def restart(key: str, config_path: Path, as_json: bool) -> None:
    """Stops the pillow KEY and starts it afresh; revives a failed one."""
    _tell("restart", key, config_path, as_json=as_json)


def _tell(what: str, key: str, config_path: Path, *, as_json: bool) -> None:
    with control_client.opened(load(config_path), writes=True) as call:
        facts = call(what, key=key)
        give_up_at = time.monotonic() + _SETTLE_SECONDS
        while not _settled(what, facts) and time.monotonic() < give_up_at:
            time.sleep(_LOOK_SECONDS)
            pillows = call("status")["pillows"]
            facts = next(each for each in pillows if _name(each) == _name(facts))
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{_name(facts)}: {facts['state']}")


def _settled(what: str, facts: Mapping[str, Any]) -> bool:
    """Whether what was told has been done, as far as that can be seen."""
    if what == "pause":
        return facts["state"] in {State.PAUSED, State.FAILED}
    return facts["state"] not in {State.PAUSED, State.STARTING}


def _name(facts: Mapping[str, Any]) -> str:
    return f"{facts['pillow']}@{facts['source']}"
