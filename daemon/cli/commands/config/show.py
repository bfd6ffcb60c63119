"""`pillowd config`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.options import common_options, json_option
from daemon.cli.output import echo, print_json
from daemon.config.dump import format_config, to_effective
from daemon.config.load import load
from daemon.config.schema import make_schema
from daemon.rebuilds.definitions import list_live_next


@click.group()
def config() -> None:
    """Show the configuration in effect."""


@config.command()
@common_options
def show(config_path: Path, as_json: bool) -> None:
    """Show every setting, with defaults filled in and secrets masked."""
    loaded = load(config_path)
    if as_json:
        print_json(to_effective(loaded))
    else:
        echo(format_config(loaded), nl=False)
        for pillow in list_live_next(loaded):
            echo(f"# {pillow}: the live rows are made by the definition under `next`")


@config.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of a configuration, for editors."""
    del as_json  # the output is always JSON
    print_json(make_schema())
