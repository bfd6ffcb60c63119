"""`pillowd list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.cli.formatting import new_table, print_table
from daemon.cli.options import common_options
from daemon.cli.output import print_json
from daemon.config.load import load
from daemon.tail_lookup import tail_key


@click.command("list")
@common_options
def list_pillows(config_path: Path, as_json: bool) -> None:
    """List the configured pillows with their sources and targets."""
    config = load(config_path, plugins=False)
    pillows: list[dict[str, Any]] = [
        {
            "key": str(tail_key(name, pillow)),
            "pillow": name,
            "source": tail_key(name, pillow).source,
            "targets": [f"{entry.connection} ({', '.join(entry.outputs)})" for entry in pillow.transport],
            "enabled": pillow.enabled,
        }
        for name, pillow in config.tails.items()
    ]
    if as_json:
        print_json(pillows)
        return
    made = new_table("pillow", "source", "targets", "enabled")
    for each in pillows:
        targets = ", ".join(each["targets"])
        made.add_row(each["pillow"], each["source"], targets, "yes" if each["enabled"] else "no")
    print_table(made)
