"""`pillowd config`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.options import config_option, json_option, print_json
from daemon.config.dump import effective
from daemon.config.dump import show as shown
from daemon.config.load import load
from daemon.config.schema import json_schema


@click.group()
def config() -> None:
    """Shows the configuration in effect."""


@config.command()
@config_option
@json_option
def show(config_path: Path, as_json: bool) -> None:
    """Shows every setting, defaults filled in and secrets masked."""
    loaded = load(config_path)
    if as_json:
        print_json(effective(loaded))
    else:
        click.echo(shown(loaded), nl=False)


@config.command()
@json_option
def schema(as_json: bool) -> None:
    """Prints the JSON Schema of a configuration, for editors."""
    del as_json  # it is JSON in any case
    print_json(json_schema())
