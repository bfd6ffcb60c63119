"""`pillowd checkpoint`: how far pillows got, and putting them elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from daemon.cli import control_client
from daemon.cli.exit_codes import CommandError
from daemon.cli.formatting import moment, short_seq, show, table
from daemon.cli.legacy_checkpoints import SYSTEMS, old_position, token
from daemon.cli.options import config_option, json_option, print_json
from daemon.config.load import load
from pillows.options import seconds


@click.group()
def checkpoint() -> None:
    """Shows and edits how far pillows got.

    KEY is a pillow's name, or `pillow@connection/database`. Edits work beside a running daemon: it
    drains that pillow and starts it again from the new position.
    """


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def get(key: str, config_path: Path, as_json: bool) -> None:
    """Shows the checkpoint of KEY."""
    saved = _call("checkpoint.get", config_path, key=key)
    if as_json:
        print_json(saved)
        return
    made = Table.grid(padding=(0, 2))
    for name in ("key", "seq", "changes", "epoch", "generation", "instance_start_time"):
        made.add_row(name, str(saved[name]))
    made.add_row("pass", "complete" if saved["pass_done"] else f"{saved['pass_epoch']} running")
    made.add_row("saved", moment(saved["saved_at"]))
    show(made)


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def history(key: str, config_path: Path, as_json: bool) -> None:
    """Shows where KEY was, newest first."""
    entries = _call("checkpoint.history", config_path, key=key)
    if as_json:
        print_json(entries)
        return
    made = table("saved", ">changes", "seq")
    for entry in entries:
        made.add_row(moment(entry["saved_at"]), f"{entry['changes']:,}", short_seq(entry["seq"]))
    show(made)


@checkpoint.command("set")
@click.argument("key")
@click.argument("seq")
@config_option
@json_option
def set_seq(key: str, seq: str, config_path: Path, as_json: bool) -> None:
    """Puts KEY at the position SEQ, a token as `checkpoint get` shows it."""
    _edited(_edit("checkpoint.set", config_path, key=key, seq=token(seq)), as_json=as_json)


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def reset(key: str, config_path: Path, as_json: bool) -> None:
    """Reads the whole source of KEY again, as a new pass that rewrites every row."""
    _edited(_edit("checkpoint.reset", config_path, key=key), as_json=as_json)


@checkpoint.command()
@click.argument("key")
@click.option("--ago", metavar="DURATION", help="Where it was so long ago, such as 2h.")
@click.option("--beginning", is_flag=True, help="To the beginning of the source.")
@config_option
@json_option
def rewind(key: str, ago: str | None, beginning: bool, config_path: Path, as_json: bool) -> None:
    """Puts KEY back to an earlier position. Rows that are equal already are not written again."""
    if (ago is None) == (not beginning):
        raise click.UsageError("Give one of --ago and --beginning.")
    try:
        before = None if ago is None else time.time() - seconds(ago)
    except ValueError as error:
        raise click.UsageError(f"--ago {error}.") from error
    _edited(_edit("checkpoint.rewind", config_path, key=key, saved_before=before), as_json=as_json)


@checkpoint.command()
@click.argument("key")
@config_option
@json_option
def export(key: str, config_path: Path, as_json: bool) -> None:
    """Prints the checkpoint of KEY as `import` takes it."""
    del as_json  # it is JSON in any case
    print_json(_call("checkpoint.export", config_path, key=key))


@checkpoint.command("import")
@click.argument("key")
@click.argument("file", type=click.File())
@click.option(
    "--from",
    "system",
    type=click.Choice(list(SYSTEMS)),
    help="FILE is another system's own: see docs/how-to/move-from-an-older-system.md.",
)
@click.option("--entry", help="Which entry of FILE, where it has several.")
@config_option
@json_option
def import_(
    *, key: str, file: Any, system: str | None, entry: str | None, config_path: Path, as_json: bool
) -> None:
    """Puts back the checkpoint of KEY that `export` printed into FILE (`-`: standard input).

    With --from, FILE is where an older system kept its position, and KEY goes on from there.
    """
    if system is not None:
        position = old_position(system, file.read(), entry)
        _edited(_edit("checkpoint.set", config_path, key=key, seq=position), as_json=as_json)
        return
    if entry is not None:
        raise click.UsageError("--entry needs --from.")
    try:
        exported = json.load(file)
    except ValueError as error:
        raise CommandError(f"{file.name} is no JSON: {error}") from error
    if not isinstance(exported, dict):
        raise CommandError(f"{file.name} is no exported checkpoint")
    _edited(_edit("checkpoint.import", config_path, key=key, exported=exported), as_json=as_json)


def _call(name: str, config_path: Path, **arguments: Any) -> Any:
    with control_client.opened(load(config_path)) as call:
        return call(name, **arguments)


def _edit(name: str, config_path: Path, **arguments: Any) -> Any:
    with control_client.opened(load(config_path), writes=True) as call:
        return call(name, **arguments)


def _edited(edited: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(edited)
    else:
        before, now = short_seq(edited["before"]), short_seq(edited["seq"])
        click.echo(f"{edited['key']}: was at {before}, is at {now} (generation {edited['generation']})")
