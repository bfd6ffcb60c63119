"""`pillowd dead-letter`: the documents that could not be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from daemon.cli import control_client
from daemon.cli.formatting import moment, show, table
from daemon.cli.options import Command, config_option, json_option, print_json
from daemon.config.load import load


@click.group("dead-letter")
def dead_letter() -> None:
    """Documents that could not be written: what they are, why, and what to do about them.

    KEY is a pillow's name, or `pillow@connection/database`.
    """


@dead_letter.command("list")
@click.argument("key")
@config_option
@json_option
def list_letters(key: str, config_path: Path, as_json: bool) -> None:
    """Lists the dead letters of the pillow KEY, oldest first."""
    with control_client.opened(load(config_path)) as call:
        letters = list(_all(call, key))
    if as_json:
        print_json(letters)
        return
    made = table("document", "transport", "stage", "since", ">failures", "next try", "reason")
    for each in letters:
        made.add_row(
            escape(each["id"]),
            each["transport"],
            each["stage"],
            moment(each["first_at"]),
            str(each["failures"]),
            next_try(each),
            escape(each["error"]),
        )
    show(made)


def _all(call: control_client.Call, key: str) -> Iterator[dict[str, Any]]:
    """All letters of a pillow: together they may be too much for one answer."""
    after: list[Any] | None = None
    while letters := call("dead-letter.list", key=key, after=after):
        yield from letters
        after = [letters[-1][name] for name in ("first_at", "transport", "id")]


@dead_letter.command("show")
@click.argument("key")
@click.argument("id")
@config_option
@json_option
def show_letter(key: str, id: str, config_path: Path, as_json: bool) -> None:
    """Shows all that is known of the document ID."""
    with control_client.opened(load(config_path)) as call:
        letters = call("dead-letter.show", key=key, id=id)
    if as_json:
        print_json(letters)
        return
    for each in letters:
        made = Table.grid(padding=(0, 2))
        for name in ("id", "rev", "version", "transport", "stage", "error", "seq", "config"):
            made.add_row(name, escape(str(each[name])))
        made.add_row("failed first", moment(each["first_at"]))
        made.add_row("failed last", moment(each["at"]))
        made.add_row("failures", f"{each['failures']}, {each['tries']} of this version")
        made.add_row("next try", next_try(each))
        show(made)


def _chosen(command: Command) -> Command:
    """Gives a command `KEY [ID]... [--all]`: which dead letters it is about."""
    every = click.option("--all", "every", is_flag=True, help="All dead letters of the pillow.")
    ids = click.argument("ids", metavar="[ID]...", nargs=-1)
    return click.argument("key")(ids(every(command)))


@dead_letter.command()
@_chosen
@config_option
@json_option
def retry(key: str, ids: tuple[str, ...], every: bool, config_path: Path, as_json: bool) -> None:
    """Has documents of KEY tried again: their state of now, through filter, transform and transports."""
    _done("retry", "will be tried again", key, ids, config_path, every=every, as_json=as_json)


@dead_letter.command()
@_chosen
@config_option
@json_option
def discard(key: str, ids: tuple[str, ...], every: bool, config_path: Path, as_json: bool) -> None:
    """Forgets documents of KEY: the target stays without them until they change."""
    _done("discard", "discarded", key, ids, config_path, every=every, as_json=as_json)


def next_try(letter: dict[str, Any]) -> str:
    """When a letter is tried again, for people."""
    if letter["aborted"]:
        return "none, given up"
    return moment(letter["next_retry_at"]) if letter["next_retry_at"] else "now"


def _done(
    what: str, told: str, key: str, ids: tuple[str, ...], config_path: Path, *, every: bool, as_json: bool
) -> None:
    if bool(ids) == every:
        raise click.UsageError("Name documents, or give --all.")
    with control_client.opened(load(config_path), writes=True) as call:
        done = call(f"dead-letter.{what}", key=key, ids=None if every else list(ids))
    if as_json:
        print_json(done)
        return
    count = next(value for name, value in done.items() if name != "key")
    click.echo(f"{done['key']}: {count} dead letter{'' if count == 1 else 's'} {told}")
