"""`pillowd checkpoint`: show and edit checkpoints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from daemon.cli.control_client import call_control
from daemon.cli.exit_codes import CommandError
from daemon.cli.formatting import format_time, new_grid, new_table, print_table, shorten_seq
from daemon.cli.legacy_checkpoints import SYSTEMS, find_position, parse_token
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from pillows.options import seconds


@click.group()
def checkpoint() -> None:
    """Show and edit checkpoints.

    KEY is a pillow's name, or `pillow@connection/database`. A running daemon drains the pillow for an edit
    and starts it again from the new position.
    """


@checkpoint.command()
@click.argument("key")
@common_options
def get(key: str, config_path: Path, as_json: bool) -> None:
    """Show the checkpoint of KEY."""
    saved = call_control(config_path, "checkpoint.get", key=key)
    if as_json:
        print_json(saved)
        return
    made = new_grid()
    for name in ("key", "seq", "changes", "epoch", "generation", "instance_start_time"):
        made.add_row(name, str(saved[name]))
    made.add_row("pass", "complete" if saved["pass_done"] else f"{saved['pass_epoch']} running")
    made.add_row("saved", format_time(saved["saved_at"]))
    print_table(made)


@checkpoint.command()
@click.argument("key")
@common_options
def history(key: str, config_path: Path, as_json: bool) -> None:
    """Show the earlier checkpoints of KEY, newest first."""
    entries = call_control(config_path, "checkpoint.history", key=key)
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
@common_options
def set_seq(key: str, seq: str, config_path: Path, as_json: bool) -> None:
    """Move KEY to the position SEQ, as `checkpoint get` shows it."""
    _edit("checkpoint.set", config_path, as_json=as_json, key=key, seq=parse_token(seq))


@checkpoint.command()
@click.argument("key")
@common_options
def reset(key: str, config_path: Path, as_json: bool) -> None:
    """Read the whole source of KEY again, in a new pass that rewrites every row."""
    _edit("checkpoint.reset", config_path, as_json=as_json, key=key)


@checkpoint.command()
@click.argument("key")
@click.option("--ago", metavar="DURATION", help="Move to the position of this long ago, such as 2h.")
@click.option("--beginning", is_flag=True, help="Move to the beginning of the source.")
@common_options
def rewind(key: str, ago: str | None, beginning: bool, config_path: Path, as_json: bool) -> None:
    """Move KEY back to an earlier position, without rewriting rows that are equal."""
    if (ago is None) == (not beginning):
        raise click.UsageError("Give one of --ago and --beginning.")
    try:
        before = None if ago is None else time.time() - seconds(ago)
    except ValueError as error:
        raise click.UsageError(f"--ago {error}.") from error
    _edit("checkpoint.rewind", config_path, as_json=as_json, key=key, saved_before=before)


@checkpoint.command()
@click.argument("key")
@common_options
def export(key: str, config_path: Path, as_json: bool) -> None:
    """Print the checkpoint of KEY for `import`."""
    del as_json  # the output is always JSON
    print_json(call_control(config_path, "checkpoint.export", key=key))


@checkpoint.command("import")
@click.argument("key")
@click.argument("file", type=click.File(lazy=True))
@click.option(
    "--from",
    "system",
    type=click.Choice(list(SYSTEMS)),
    help="Read the position file of an older system; see docs/how-to/move-from-an-older-system.md.",
)
@click.option("--entry", help="Entry of FILE, if it has several.")
@common_options
def import_(
    *, key: str, file: Any, system: str | None, entry: str | None, config_path: Path, as_json: bool
) -> None:
    """Restore the checkpoint of KEY that `export` printed into FILE (`-` is standard input).

    With --from, continue from the position that an older system kept in FILE.
    """
    if system is not None:
        position = find_position(system, file.read(), entry)
        _edit("checkpoint.set", config_path, as_json=as_json, key=key, seq=position)
        return
    if entry is not None:
        raise click.UsageError("--entry needs --from.")
    try:
        exported = json.load(file)
    except ValueError as error:
        raise CommandError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(exported, dict):
        raise CommandError(f"{file.name} is not an exported checkpoint")
    _edit("checkpoint.import", config_path, as_json=as_json, key=key, exported=exported)


def _edit(method: str, config_path: Path, *, as_json: bool, **arguments: Any) -> None:
    edited = call_control(config_path, method, writes=True, **arguments)
    if as_json:
        print_json(edited)
    else:
        before, now = shorten_seq(edited["before"]), shorten_seq(edited["seq"])
        echo(f"{edited['key']}: was at {before}, is at {now} (generation {edited['generation']})")
