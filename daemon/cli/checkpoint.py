"""`pillowd checkpoint`: show and edit checkpoints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from daemon.cli import control_client
from daemon.cli.exit_codes import CommandError
from daemon.cli.formatting import format_time, new_table, print_table, shorten_seq
from daemon.cli.legacy_checkpoints import SYSTEMS, find_position, parse_token
from daemon.cli.options import config_option, json_option, print_json
from daemon.config.load import load
from pillows.options import seconds


@click.group()
def checkpoint() -> None:
    """Show and edit checkpoints.

    KEY is a pillow's name, or `pillow@connection/database`. A running daemon drains the pillow for an edit
    and starts it again from the new position.
    """


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def get(key: str, config_path: Path, as_json: bool) -> None:
    """Show the checkpoint of KEY."""
    saved = _call("checkpoint.get", config_path, key=key)
    if as_json:
        print_json(saved)
        return
    made = Table.grid(padding=(0, 2))
    for name in ("key", "seq", "changes", "epoch", "generation", "instance_start_time"):
        made.add_row(name, str(saved[name]))
    made.add_row("pass", "complete" if saved["pass_done"] else f"{saved['pass_epoch']} running")
    made.add_row("saved", format_time(saved["saved_at"]))
    print_table(made)


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def history(key: str, config_path: Path, as_json: bool) -> None:
    """Show the earlier checkpoints of KEY, newest first."""
    entries = _call("checkpoint.history", config_path, key=key)
    if as_json:
        print_json(entries)
        return
    made = new_table("saved", ">changes", "seq")
    for entry in entries:
        made.add_row(format_time(entry["saved_at"]), f"{entry['changes']:,}", shorten_seq(entry["seq"]))
    print_table(made)


@checkpoint.command("set")
@click.argument("key")
@click.argument("seq")
@config_option
@json_option
def set_seq(key: str, seq: str, config_path: Path, as_json: bool) -> None:
    """Move KEY to the position SEQ, as `checkpoint get` shows it."""
    _print_edit(_edit("checkpoint.set", config_path, key=key, seq=parse_token(seq)), as_json=as_json)


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def reset(key: str, config_path: Path, as_json: bool) -> None:
    """Read the whole source of KEY again, in a new pass that rewrites every row."""
    _print_edit(_edit("checkpoint.reset", config_path, key=key), as_json=as_json)


@checkpoint.command()
@click.argument("key")
@click.option("--ago", metavar="DURATION", help="Move to the position of this long ago, such as 2h.")
@click.option("--beginning", is_flag=True, help="Move to the beginning of the source.")
@config_option
@json_option
def rewind(key: str, ago: str | None, beginning: bool, config_path: Path, as_json: bool) -> None:
    """Move KEY back to an earlier position, without rewriting rows that are equal."""
    if (ago is None) == (not beginning):
        raise click.UsageError("Give one of --ago and --beginning.")
    try:
        before = None if ago is None else time.time() - seconds(ago)
    except ValueError as error:
        raise click.UsageError(f"--ago {error}.") from error
    _print_edit(_edit("checkpoint.rewind", config_path, key=key, saved_before=before), as_json=as_json)


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def export(key: str, config_path: Path, as_json: bool) -> None:
    """Print the checkpoint of KEY for `import`."""
    del as_json  # the output is always JSON
    print_json(_call("checkpoint.export", config_path, key=key))


@checkpoint.command("import")
@click.argument("key")
@click.argument("file", type=click.File())
@click.option(
    "--from",
    "system",
    type=click.Choice(list(SYSTEMS)),
    help="Read the position file of an older system; see docs/how-to/move-from-an-older-system.md.",
)
@click.option("--entry", help="Entry of FILE, if it has several.")
@config_option
@json_option
def import_(
    *, key: str, file: Any, system: str | None, entry: str | None, config_path: Path, as_json: bool
) -> None:
    """Restore the checkpoint of KEY that `export` printed into FILE (`-` is standard input).

    With --from, continue from the position that an older system kept in FILE.
    """
    if system is not None:
        position = find_position(system, file.read(), entry)
        _print_edit(_edit("checkpoint.set", config_path, key=key, seq=position), as_json=as_json)
        return
    if entry is not None:
        raise click.UsageError("--entry needs --from.")
    try:
        exported = json.load(file)
    except ValueError as error:
        raise CommandError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(exported, dict):
        raise CommandError(f"{file.name} is not an exported checkpoint")
    _print_edit(_edit("checkpoint.import", config_path, key=key, exported=exported), as_json=as_json)


def _call(name: str, config_path: Path, **arguments: Any) -> Any:
    with control_client.open_control(load(config_path)) as call:
        return call(name, **arguments)


def _edit(name: str, config_path: Path, **arguments: Any) -> Any:
    with control_client.open_control(load(config_path), writes=True) as call:
        return call(name, **arguments)


def _print_edit(edited: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(edited)
    else:
        before, now = shorten_seq(edited["before"]), shorten_seq(edited["seq"])
        click.echo(f"{edited['key']}: was at {before}, is at {now} (generation {edited['generation']})")
