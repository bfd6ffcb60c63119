"""`pillowd dead-letter`: show, retry and discard documents that could not be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from daemon.cli import control_client
from daemon.cli.formatting import format_time, new_grid, new_table, print_table
from daemon.cli.options import Command, common_options
from daemon.cli.output import echo, print_json
from daemon.config.load import load


@click.group("dead-letter")
def dead_letter() -> None:
    """Show, retry and discard dead letters: documents that could not be written.

    KEY is a pillow's name, or `pillow@connection/database`.
    """


@dead_letter.command("list")
@click.argument("key")
@common_options
def list_dead_letters(key: str, config_path: Path, as_json: bool) -> None:
    """List the dead letters of the pillow KEY, oldest first."""
    with control_client.open_control(load(config_path, plugins=False)) as call:
        dead_letters = list(_iter_dead_letters(call, key))
    if as_json:
        print_json(dead_letters)
        return
    made = new_table("document", "transport", "stage", "since", ">failures", "next retry", "reason")
    for each in dead_letters:
        made.add_row(
            escape(each["id"]),
            each["transport"],
            each["stage"],
            format_time(each["first_at"]),
            str(each["failures"]),
            format_next_retry(each),
            escape(each["error"]),
        )
    print_table(made)


def _iter_dead_letters(call: control_client.Call, key: str) -> Iterator[dict[str, Any]]:
    """Yield all dead letters of a pillow, page by page."""
    after: list[Any] | None = None
    while page := call("dead-letter.list", key=key, after=after):
        yield from page
        after = [page[-1][name] for name in ("first_at", "transport", "id")]


@dead_letter.command("show")
@click.argument("key")
@click.argument("id")
@common_options
def show_dead_letters(key: str, id: str, config_path: Path, as_json: bool) -> None:
    """Show every detail of the dead letters of the document ID."""
    dead_letters = control_client.call_control(config_path, "dead-letter.show", key=key, id=id)
    if as_json:
        print_json(dead_letters)
        return
    for each in dead_letters:
        made = new_grid()
        for name in ("id", "rev", "version", "transport", "stage", "error", "seq", "config"):
            made.add_row(name, escape(str(each[name])))
        made.add_row("failed first", format_time(each["first_at"]))
        made.add_row("failed last", format_time(each["at"]))
        made.add_row("failures", f"{each['failures']}, {each['tries']} of this version")
        made.add_row("next retry", format_next_retry(each))
        print_table(made)


def _choice_options(command: Command) -> Command:
    """Add `KEY [ID]... [--all]`, which choose dead letters, to a command."""
    every = click.option("--all", "every", is_flag=True, help="Choose all dead letters of the pillow.")
    ids = click.argument("ids", metavar="[ID]...", nargs=-1)
    return click.argument("key")(ids(every(command)))


@dead_letter.command()
@_choice_options
@common_options
def retry(key: str, ids: tuple[str, ...], every: bool, config_path: Path, as_json: bool) -> None:
    """Retry the dead letters of KEY with each document's current revision."""
    _edit("retry", "will be retried", key, ids, config_path, every=every, as_json=as_json)


@dead_letter.command()
@_choice_options
@common_options
def discard(key: str, ids: tuple[str, ...], every: bool, config_path: Path, as_json: bool) -> None:
    """Discard dead letters of KEY; the target lacks their documents until they change."""
    _edit("discard", "discarded", key, ids, config_path, every=every, as_json=as_json)


def format_next_retry(dead_letter: dict[str, Any]) -> str:
    """Return the time of the next retry, for people."""
    if dead_letter["aborted"]:
        return "none, given up"
    return format_time(dead_letter["next_retry_at"]) if dead_letter["next_retry_at"] else "now"


def _edit(
    what: str, result: str, key: str, ids: tuple[str, ...], config_path: Path, *, every: bool, as_json: bool
) -> None:
    if bool(ids) == every:
        raise click.UsageError("Name documents, or use --all.")
    chosen = None if every else list(ids)
    done = control_client.call_control(config_path, f"dead-letter.{what}", writes=True, key=key, ids=chosen)
    if as_json:
        print_json(done)
        return
    count = next(value for name, value in done.items() if name != "key")
    echo(f"{done['key']}: {count} dead letter{'' if count == 1 else 's'} {result}")
