"""`pillowd dead-letter`: the documents that could not be written."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from daemon import desk
from daemon.cli_common import config_option, json_option, print_json
from daemon.config import load
from daemon.status import moment, show, table


@click.group("dead-letter")
def dead_letter() -> None:
    """Shows and discards documents that could not be written."""


@dead_letter.command("list")
@click.argument("key")
@config_option
@json_option
def list_letters(key: str, config_path: Path, as_json: bool) -> None:
    """Lists the dead letters of the pillow KEY, oldest first."""
    with desk.opened(load(config_path)) as call:
        letters = call("dead-letter.list", key=key)
    if as_json:
        print_json(letters)
        return
    made = table("document", "transport", "stage", "since", ">failures", "reason")
    for each in letters:
        made.add_row(
            escape(each["id"]),
            each["transport"],
            each["stage"],
            moment(each["first_at"]),
            str(each["failures"]),
            escape(each["error"]),
        )
    show(made)


@dead_letter.command()
@click.argument("key")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All dead letters of KEY.")
@config_option
@json_option
def discard(key: str, ids: tuple[str, ...], everything: bool, config_path: Path, as_json: bool) -> None:
    """Forgets dead letters of the pillow KEY; the documents stay unwritten until they change."""
    if everything == bool(ids):
        raise click.UsageError("Name documents, or give --all.")
    with desk.opened(load(config_path), writes=True) as call:
        done = call("dead-letter.discard", key=key, ids=None if everything else list(ids))
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done['key']}: {done['discarded']} discarded")
