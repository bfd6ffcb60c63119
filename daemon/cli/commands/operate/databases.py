"""`pillowd databases`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.control_client import find_control, join_pages, name_pillow
from daemon.cli.formatting import describe_counts, format_duration, new_table, print_table
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.control.databases import WORST


@click.command()
@click.argument("key")
@click.option("--state", type=click.Choice(WORST), help="List only databases in this state.")
@common_options
def databases(*, config_path: Path, as_json: bool, key: str, state: str | None) -> None:
    """List the databases of the pillow KEY, if it reads several, with their states."""
    with find_control(config_path)() as call:
        found = join_pages(call, "list_databases", "databases", **name_pillow(key), state=state)
    if as_json:
        print_json(found)
        return
    echo(describe_counts(found["counts"]))
    made = new_table("database", "state", ">changes wait for", ">failures", "reason")
    for each in found["databases"]:
        waits = format_duration(each["dirty_seconds"])
        made.add_row(each["database"], each["state"], waits, str(each["failures"]), each["reason"])
    print_table(made)
