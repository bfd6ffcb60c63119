"""The options that commands share, and the search for the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon.cli.exit_codes import NotConfiguredError

#: A function that becomes a command.
Command = TypeVar("Command", bound=Callable[..., Any])

#: Default paths of the configuration, after --config and $PILLOWD_CONFIG.
PLACES = (Path("pillowd.yaml"), Path("/etc/pillowd/pillowd.yaml"))


def config_option(command: Command) -> Command:
    """Add the option `--config FILE` to a command."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        callback=lambda _ctx, _param, value: find_config(value),
        metavar="FILE",
        help="Configuration file. Default: $PILLOWD_CONFIG, ./pillowd.yaml (root: never), or "
        "/etc/pillowd/pillowd.yaml.",
    )(command)


def json_option(command: Command) -> Command:
    """Add the option `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def common_options(command: Command) -> Command:
    """Add the options `--config FILE` and `--json` to a command."""
    return config_option(json_option(command))


def find_config(given: Path | None) -> Path:
    """Return the path of the configuration.

    Raises:
        NotConfiguredError: there is no configuration.
    """
    if given is not None:
        return given
    named = os.environ.get("PILLOWD_CONFIG")
    if named:
        return Path(named)
    # What lies in a folder that root happens to be in may be anybody's.
    places = [place for place in PLACES if place.is_absolute() or os.geteuid() != 0]
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(map(str, places))
    raise NotConfiguredError(
        f"no configuration: $PILLOWD_CONFIG is not set, and there is no {looked}. Remedy: use --config FILE"
    )
