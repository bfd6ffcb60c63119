"""What all commands share: where the configuration is, how results are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon.cli.exit_codes import NotConfiguredError

#: What a decorator of commands takes and returns.
Command = TypeVar("Command", bound=Callable[..., Any])

#: Where a configuration is looked for, after --config and $PILLOWD_CONFIG.
PLACES = (Path("pillowd.yaml"), Path("/etc/pillowd/pillowd.yaml"))


def config_option(command: Command) -> Command:
    """Gives a command the option `--config FILE`."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        callback=lambda _ctx, _param, value: find_config(value),
        metavar="FILE",
        help="The configuration. Default: $PILLOWD_CONFIG, ./pillowd.yaml, /etc/pillowd/pillowd.yaml.",
    )(command)


def json_option(command: Command) -> Command:
    """Gives a command the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def find_config(given: Path | None) -> Path:
    """The configuration's path.

    Raises:
        NotConfiguredError: there is none.
    """
    if given is not None:
        return given
    named = os.environ.get("PILLOWD_CONFIG")
    if named:
        return Path(named)
    for place in PLACES:
        if place.exists():
            return place
    looked = ", ".join(map(str, PLACES))
    raise NotConfiguredError(
        f"no configuration: $PILLOWD_CONFIG is not set, and there is no {looked}. Remedy: --config FILE"
    )


def print_json(value: Any) -> None:
    """Prints a value as one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
