"""`pillowd backfill`: send chosen documents through a pillow again, while it follows its feed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from gevent.event import Event
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from daemon.backfill.backfill import ENDED
from daemon.cli.confirm import confirm_effects
from daemon.cli.control_client import Call, get_status, name_pillow, open_control
from daemon.cli.exit_codes import CommandError, ExitCode
from daemon.cli.formatting import (
    format_count,
    format_duration,
    format_rate,
    format_time,
    new_table,
    print_table,
)
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.control.paging import split
from pillows.clock import SystemClock

#: Interval at which the progress of a backfill is read while the command waits.
_LOOK_SECONDS = 0.5


class _Backfill(click.Group):
    """A group whose first word may be a pillow: then documents of that are sent."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `start` before a pillow's name."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Backfill)
def backfill() -> None:
    """Send chosen documents through a pillow again, while it follows its feed.

    `pillowd backfill KEY --ids FILE` starts one. The pillow continues meanwhile, and its checkpoint does not
    move. Documents are sent in ranges of about a thousand. After a crash or a restart the backfill continues.
    """


@backfill.command()
@click.argument("key")
@click.option(
    "--ids",
    "ids_file",
    type=click.File(encoding="utf-8", errors="strict"),
    help="Send the documents with the ids in this file, one per line (`-` is standard input). A line "
    "that begins with a quote is a JSON string.",
)
@click.option("--prefix", help="Send all documents whose id begins with this text.")
@click.option("--selector", metavar="JSON", help="Send all documents that match this Mango selector.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@common_options
def start(
    *,
    key: str,
    ids_file: Any,
    prefix: str | None,
    selector: str | None,
    detach: bool,
    yes: bool,
    config_path: Path,
    as_json: bool,
) -> ExitCode:
    """Send documents through KEY again.

    The rows of documents in --ids that no longer exist are removed. --prefix and --selector do not find
    deleted documents; `verify --repair` removes their rows. Databases and indices are updated in place.
    Files, streams and webhooks get every document once more.

    Without a daemon the documents are sent by this command.
    """
    chosen = {"ids": ids_file, "prefix": prefix, "selector": selector}
    if sum(value is not None for value in chosen.values()) != 1:
        raise click.UsageError("Give one of --ids, --prefix and --selector.")
    body: dict[str, Any] = {}
    pages: list[list[str]] = []
    if ids_file is not None:
        pages = list(split(read_ids(ids_file.read(), ids_file.name)))
        body = {"ids": pages.pop(0)} | ({"more": True} if pages else {})
    elif prefix is not None:
        body = {"prefix": prefix}
    else:
        body = {"selector": _parse_selector(selector or "")}
    confirm_effects(
        config_path,
        key,
        yes=yes,
        keyed="the rows of the chosen documents are written again",
        appended="the chosen documents are appended or sent once more",
    )
    with open_control(load(config_path), writes=True) as call:
        found = call("start_backfill", **name_pillow(key), body=body)
        for number, page in enumerate(pages, 1):
            more = {"ids": page, "more": number < len(pages)}
            found = call("add_backfill_ids", id=found["id"], body=more)
        return _follow(call, found, detach=detach, as_json=as_json)


@backfill.command("status")
@click.argument("key", required=False)
@common_options
def status(key: str | None, config_path: Path, as_json: bool) -> None:
    """Show the backfills of KEY, or of all pillows."""
    with open_control(load(config_path, plugins=False)) as call:
        found = call("list_backfills", **(name_pillow(key) if key else {}))["backfills"]
    if as_json:
        print_json(found)
        return
    made = new_table("id", "pillow", "state", ">documents", ">done", ">a second", ">to go", "started", "")
    for each in found:
        rate = format_rate(each["per_second"]) if each["state"] == "running" else ""
        to_go = format_duration(each["seconds_to_go"]) if each["state"] == "running" else ""
        made.add_row(
            each["id"],
            escape(each["key"]),
            each["state"],
            format_count(each["documents"]),
            f"{each['done']:,}",
            rate,
            to_go,
            format_time(each["created_at"]),
            escape(_describe_failures(each)),
        )
    print_table(made)


@backfill.command()
@click.argument("id")
@click.option("--range", "number", type=click.IntRange(min=1), required=True, help="Number of the range.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@common_options
def retry(*, id: str, number: int, detach: bool, config_path: Path, as_json: bool) -> ExitCode:
    """Send a range of the backfill ID again. If ID is a pillow, its last backfill is used."""
    with open_control(load(config_path), writes=True) as call:
        found = call("retry_backfill", id=_find(call, id), body={"range": number})
        return _follow(call, found, detach=detach, as_json=as_json)


@backfill.command()
@click.argument("id")
@common_options
def cancel(id: str, config_path: Path, as_json: bool) -> None:
    """Cancel the backfill ID, or the last one of a pillow. Documents already sent are not undone."""
    with open_control(load(config_path, plugins=False), writes=True) as call:
        found = call("cancel_backfill", id=_find(call, id))
    if as_json:
        print_json(found)
    else:
        echo(f"{found['key']}: backfill {found['id']} cancelled after {found['done']:,} documents")


def read_ids(text: str, name: str) -> list[str]:
    """Return the ids in a file, each once.

    Args:
        text: of the file.
        name: of the file, for errors.

    Raises:
        CommandError: a line is not an id, or the file has no ids.
    """
    ids: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        id: Any = line.strip()
        if id.startswith('"'):
            try:
                id = json.loads(id)
            except ValueError as error:
                raise CommandError(
                    f"{name}, line {number}: it is not a JSON string. Remedy: correct it, or write the id "
                    "without quotes"
                ) from error
        if id:
            ids[id] = None
    if not ids:
        raise CommandError(f"{name} has no ids")
    return list(ids)


def _parse_selector(text: str) -> Mapping[str, Any]:
    try:
        selector = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--selector is not JSON: {error}.") from error
    if not isinstance(selector, dict):
        raise click.UsageError("--selector must be a JSON object.")
    return selector


def _find(call: Call, text: str) -> str:
    """Return the id of a backfill, or that of the last one of a pillow."""
    every: Sequence[Mapping[str, Any]] = call("list_backfills")["backfills"]
    if any(each["id"] == text for each in every):
        return text
    ours = [each["id"] for each in every if text in (each["key"], each["key"].partition("@")[0])]
    return str(ours[-1]) if ours else text


def _follow(call: Call, found: dict[str, Any], *, detach: bool, as_json: bool) -> ExitCode:
    """Show the progress of a backfill until it has ended, and then its result."""
    clock, console = SystemClock(), Console(stderr=True)
    shown = not as_json and console.is_terminal
    with Live(console=console, transient=True) if shown else nullcontext() as live:
        while not detach and found["state"] not in ENDED:
            if live is not None:
                live.update(_describe_progress(call, found))
            clock.wait(Event(), _LOOK_SECONDS)
            found = call("get_backfill", id=found["id"])
    if as_json:
        print_json(found)
    elif detach:
        echo(f"{found['key']}: backfill {found['id']} started")
    else:
        echo(f"{found['key']}: backfill {found['id']} is {found['state']}: {found['done']:,} documents sent")
        if failures := _describe_failures(found):
            echo(failures, err=True)
    return ExitCode.OK if detach or found["state"] == "done" else ExitCode.FAILED


def _describe_progress(call: Call, found: Mapping[str, Any]) -> str:
    if found["state"] != "running":
        states = {f"{each['pillow']}@{each['source']}": each["state"] for each in get_status(call)["pillows"]}
        return escape(f"{found['key']}: waiting (the pillow is {states.get(found['key'], 'not configured')})")
    if found["documents"] is None:
        return escape(f"{found['key']}: listing the documents, {found['ranges']:,} ranges so far")
    return escape(
        f"{found['key']}: {found['done']:,} of {found['documents']:,} documents, "
        f"{format_rate(found['per_second'])}, {format_duration(found['seconds_to_go'])} to go"
    )


def _describe_failures(found: Mapping[str, Any]) -> str:
    first = [f"range {each['number']}: {each['reason']}" for each in found["failed_ranges"][:3]]
    return "; ".join([each for each in (found["reason"], *first) if each])
