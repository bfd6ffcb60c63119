"""`pillowd pause`, `resume`, `restart`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli import control_client
from daemon.cli.formatting import format_key
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json

#: Longest wait for a pillow to reach the state that a command asked for.
_WAIT = "30s"


@click.command()
@click.argument("key")
@common_options
def pause(key: str, config_path: Path, as_json: bool) -> None:
    """Stop the pillow KEY until `resume`, even if the daemon restarts."""
    _change_state("pause_pillow", key, config_path, as_json=as_json)


@click.command()
@click.argument("key")
@common_options
def resume(key: str, config_path: Path, as_json: bool) -> None:
    """Start the paused pillow KEY."""
    _change_state("resume_pillow", key, config_path, as_json=as_json)


@click.command()
@click.argument("key")
@common_options
def restart(key: str, config_path: Path, as_json: bool) -> None:
    """Stop the pillow KEY and start it again, even if it has failed."""
    _change_state("restart_pillow", key, config_path, as_json=as_json)


def _change_state(operation: str, key: str, config_path: Path, *, as_json: bool) -> None:
    named = control_client.name_pillow(key)
    facts = control_client.call_control(config_path, operation, writes=True, **named, wait=_WAIT)
    if as_json:
        print_json(facts)
    else:
        echo(f"{format_key(facts)}: {facts['state']}")
