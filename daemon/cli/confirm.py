"""Print the effects of a command on each target of a pillow, and ask for confirmation."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import click

from daemon.cli.output import echo
from daemon.config.load import load
from daemon.errors import UnknownPillowError
from daemon.tail_lookup import resolve_configured
from pillows import registry
from pillows.transports.base import AppendOnlyTransport


def confirm_effects(
    config_path: Path,
    key: str,
    *,
    yes: bool,
    keyed: str,
    appended: str = "every row is appended once more, to the old ones",
) -> None:
    """Print the effects of an edit on each target; on a terminal, ask for confirmation.

    Args:
        config_path: the configuration.
        key: names the pillow.
        yes: do not ask.
        keyed: what happens in a target that has one row for each document.
        appended: what happens in a target that only ever receives more.

    Raises:
        click.Abort: the operator said no.
    """
    config = load(config_path, plugins=False)
    with suppress(UnknownPillowError):  # only its checkpoint may be left
        tail = resolve_configured(key, config)
        for entry in config.tails[tail.pillow].transport:
            is_append_only = _is_append_only(config.connections[entry.connection].type)
            effect = appended if is_append_only else keyed
            echo(f"{tail}: {entry.name} ({', '.join(entry.outputs)}): {effect}", err=True)
    if not yes and sys.stdin.isatty():
        click.confirm("Go on?", abort=True, err=True)


def _is_append_only(type: str) -> bool:
    """Return whether a transport only ever appends; False for one of a plugin that is not imported."""
    return registry.has_transport(type) and issubclass(registry.transport(type), AppendOnlyTransport)
