"""The options that commands share, and the search for the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon.cli.exit_codes import NotConfiguredError
from daemon.config.environment import IN_ENVIRONMENT, VARIABLE

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
        help="Configuration file. Default: $PILLOWD_CONFIG, the YAML in $PILLOWD_CONFIG_YAML, ./pillowd.yaml "
        "(not for root), or /etc/pillowd/pillowd.yaml.",
    )(command)


def json_option(command: Command) -> Command:
    """Add the option `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def common_options(command: Command) -> Command:
    """Add the options `--config FILE` and `--json` to a command."""
    return config_option(json_option(command))


def find_config(given: Path | None) -> Path:
    """Return the path of the configuration, or `IN_ENVIRONMENT`.

    Raises:
        NotConfiguredError: there is no configuration, or the environment names two.
    """
    if given is not None:
        return given
    named = os.environ.get("PILLOWD_CONFIG")
    if named and os.environ.get(VARIABLE):
        raise NotConfiguredError(
            f"$PILLOWD_CONFIG and ${VARIABLE} are both set. Remedy: unset one of the two"
        )
    if named:
        return Path(named)
    if os.environ.get(VARIABLE):
        return IN_ENVIRONMENT
    # Any user may have put a file into the folder in which root runs the command.
    places = [place for place in PLACES if place.is_absolute() or os.geteuid() != 0]
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(map(str, places))
    raise NotConfiguredError(
        f"no configuration: neither $PILLOWD_CONFIG nor ${VARIABLE} is set, and there is no {looked}. "
        "Remedy: use --config FILE"
    )
