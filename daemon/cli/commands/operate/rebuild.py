"""`pillowd rebuild`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from daemon.cli import control_client
from daemon.cli.formatting import format_count, format_duration, format_rate
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.config.load_options import parse_workers
from daemon.printable import printable


class _Rebuild(click.Group):
    """A group whose first word may be a pillow: then that is rebuilt."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return `start` for a pillow's name, with that as its argument."""
        if args[0] not in self.commands:
            return "start", self.commands["start"], args
        return super().resolve_command(ctx, args)


@click.group(cls=_Rebuild)
def rebuild() -> None:
    """Build new outputs of a pillow beside the live ones, and switch to them.

    `pillowd rebuild KEY` begins. Write the new definition under `next:` in the pillow; without it, the rows
    are made again with the current one. Readers see the former rows until the switch, which takes a moment.
    No documents are read again after it.
    """


@rebuild.command()
@click.argument("key")
@click.option(
    "--verify",
    type=click.Choice(["full", "sample"]),
    help="Documents whose contents are compared before the switch, in addition to all versions. "
    "Default: sample (1,000 documents).",
)
@click.option(
    "--switch",
    type=click.Choice(["auto", "manual", "replace-rows"]),
    help="Switch as soon as nothing differs (default), wait for `pillowd rebuild switch`, or copy the new "
    "rows into the tables, while their readers wait (for tables that views or foreign keys depend on).",
)
@click.option(
    "--workers",
    metavar="N",
    help="Number of worker processes while the new outputs are far behind; `auto` means one fewer than the "
    "number of cores. Default: the pillow's own setting.",
)
@click.option("--keep", metavar="DURATION", help="How long to keep the former outputs. Default: 24h.")
@common_options
def start(
    *,
    key: str,
    verify: str | None,
    switch: str | None,
    workers: str | None,
    keep: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Begin to rebuild the pillow KEY."""
    count = None if workers is None else parse_workers(workers)
    given = {"verify": verify, "switch": switch, "workers": count, "keep": keep}
    body = {name: value for name, value in given.items() if value is not None}
    _call("start_rebuild", key, config_path, as_json=as_json, body=body)


@rebuild.command()
@click.argument("key")
@common_options
def status(key: str, config_path: Path, as_json: bool) -> None:
    """Show the progress of the rebuild of the pillow KEY."""
    facts = control_client.call_control(config_path, "get_rebuild", **control_client.name_pillow(key))
    _show(facts, as_json=as_json)


@rebuild.command(name="switch")
@click.argument("key")
@common_options
def switch_(key: str, config_path: Path, as_json: bool) -> None:
    """Switch to the other outputs of the pillow KEY, as soon as they are ready."""
    _call("switch_rebuild", key, config_path, as_json=as_json)


@rebuild.command()
@click.argument("key")
@common_options
def rollback(key: str, config_path: Path, as_json: bool) -> None:
    """Switch back to the former outputs of the pillow KEY; they were kept up to date."""
    _call("roll_back_rebuild", key, config_path, as_json=as_json)


@rebuild.command()
@click.argument("key")
@common_options
def cancel(key: str, config_path: Path, as_json: bool) -> None:
    """Remove the outputs that were being built for the pillow KEY."""
    _call("cancel_rebuild", key, config_path, as_json=as_json)


@rebuild.command()
@click.argument("key")
@common_options
def drop(key: str, config_path: Path, as_json: bool) -> None:
    """Remove the former outputs of the pillow KEY. A rollback is then impossible."""
    _call("drop_rebuild", key, config_path, as_json=as_json)


def _call(operation: str, key: str, config_path: Path, *, as_json: bool, **more: Any) -> None:
    named = control_client.name_pillow(key)
    _show(control_client.call_control(config_path, operation, writes=True, **named, **more), as_json=as_json)


def _show(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    since = format_duration(time.time() - facts["changed_at"])
    wanted = f", {facts['wanted']} is asked for" if facts["wanted"] else ""
    echo(f"{facts['key']}: {facts['state']} for {since}{wanted}; build {facts['live']} is live")
    if facts["other_key"] is not None:
        echo(f"{facts['other_key']}: {_describe_other(facts)}")
    if facts["reason"]:
        echo(printable(facts["reason"]))


def _describe_other(facts: Mapping[str, Any]) -> str:
    if not facts["fed"]:
        return "not kept up to date"
    rate = f", {format_rate(facts['changes_per_second'])} changes/s"
    to_go = f", {format_duration(facts['seconds_to_go'])} to go"
    return f"{facts['other_state']}, {format_count(facts['pending'])} changes behind{rate}{to_go}"
