"""`pillowd checkpoint`: show and edit checkpoints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from daemon.cli.ask_source import NOW, ask_position
from daemon.cli.confirm import confirm_effects
from daemon.cli.control_client import call_control, name_pillow
from daemon.cli.exit_codes import CommandError
from daemon.cli.formatting import format_time, new_grid, new_table, print_table, shorten_seq
from daemon.cli.legacy_checkpoints import SYSTEMS, find_position, parse_token
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.config.models import Config
from daemon.control.checkpoints import EXPORT_FORMAT
from daemon.errors import UnknownPillowError
from daemon.tail_lookup import resolve_configured
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
    saved = call_control(config_path, "get_checkpoint", **name_pillow(key))
    if as_json:
        print_json(saved)
        return
    made = new_grid()
    for name in ("key", "seq", "changes", "epoch", "generation", "instance_start_time"):
        made.add_row(name, str(saved[name]))
    made.add_row("pass", "complete" if saved["pass_done"] else f"{saved['pass_epoch']} running")
    made.add_row("saved", format_time(saved["saved_at"]))
    print_table(made)


@checkpoint.command("list")
@click.option("--orphans", is_flag=True, help="List only checkpoints of pillows that are not configured.")
@common_options
def list_checkpoints(orphans: bool, config_path: Path, as_json: bool) -> None:
    """List the saved checkpoints.

    If you remove a pillow, its checkpoint stays. The pillow continues from it if you add it again.
    """
    found = call_control(config_path, "list_checkpoints", orphans=orphans)["checkpoints"]
    if as_json:
        print_json(found)
        return
    made = new_table("pillow", "saved", ">changes", "")
    for each in found:
        changes = "-" if each["changes"] is None else f"{each['changes']:,}"
        made.add_row(
            each["key"], format_time(each["saved_at"]), changes, "" if each["configured"] else "orphan"
        )
    print_table(made)


@checkpoint.command()
@click.argument("key")
@common_options
def history(key: str, config_path: Path, as_json: bool) -> None:
    """Show the earlier checkpoints of KEY, newest first."""
    entries = call_control(config_path, "list_checkpoint_history", **name_pillow(key))["history"]
    if as_json:
        print_json(entries)
        return
    made = new_table("saved", ">changes", "seq")
    for entry in entries:
        made.add_row(format_time(entry["saved_at"]), f"{entry['changes']:,}", shorten_seq(entry["seq"]))
    print_table(made)


_force_option = click.option(
    "--force", is_flag=True, help="Do not ask the source whether it knows the position."
)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@checkpoint.command("set")
@click.argument("key")
@click.argument("seq")
@_force_option
@common_options
def set_seq(key: str, seq: str, force: bool, config_path: Path, as_json: bool) -> None:
    """Move KEY to the position SEQ, as `checkpoint get` shows it, or to the end of its source (`now`).

    The source is asked first whether it knows the position.
    """
    if force and seq == NOW:
        raise click.UsageError("Only the source knows where `now` is; leave out --force.")
    position = _require_known(load(config_path, plugins=False), key, parse_token(seq), force=force)
    _edit("edit_checkpoint", config_path, key, as_json=as_json, body={"seq": position})


@checkpoint.command()
@click.argument("key")
@_yes_option
@common_options
def reset(key: str, yes: bool, config_path: Path, as_json: bool) -> None:
    """Read the whole source of KEY again, in a new pass that rewrites every row."""
    confirm_effects(
        config_path, key, yes=yes, keyed="every row is written again, and others are removed at the end"
    )
    _edit("reset_checkpoint", config_path, key, as_json=as_json)


@checkpoint.command()
@click.argument("key")
@click.option(
    "--ago",
    metavar="DURATION",
    help="Move to the position of this long ago, such as 2h.",
)
@click.option("--beginning", is_flag=True, help="Move to the beginning of the source.")
@_yes_option
@common_options
def rewind(
    *, key: str, ago: str | None, beginning: bool, yes: bool, config_path: Path, as_json: bool
) -> None:
    """Move KEY back to an earlier position; rows that are already equal are not rewritten."""
    if (ago is None) == (not beginning):
        raise click.UsageError("Give one of --ago and --beginning.")
    try:
        before = None if ago is None else time.time() - seconds(ago)
    except ValueError as error:
        raise click.UsageError(f"--ago {error}.") from error
    confirm_effects(config_path, key, yes=yes, keyed="rows that differ are written again")
    to = "beginning" if before is None else before
    _edit("edit_checkpoint", config_path, key, as_json=as_json, body={"to": to})


@checkpoint.command()
@click.argument("key")
@common_options
def export(key: str, config_path: Path, as_json: bool) -> None:
    """Print the checkpoint of KEY for `import`."""
    del as_json  # the output is always JSON
    saved = call_control(config_path, "get_checkpoint", **name_pillow(key))
    print_json({"format": EXPORT_FORMAT, "key": saved.pop("key"), "checkpoint": saved})


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
@_force_option
@common_options
def import_(
    *,
    key: str,
    file: Any,
    system: str | None,
    entry: str | None,
    force: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Restore the checkpoint of KEY that `export` printed into FILE (`-` is standard input).

    With --from, continue from the position that an older system kept in FILE. The source is asked first
    whether it knows the position.
    """
    config = load(config_path, plugins=False)
    text = file.read()
    if not text.strip():
        raise CommandError(f"{file.name} is empty. Remedy: give the file that the checkpoint was written to")
    if system is not None:
        position = find_position(system, text, entry)
        position = _require_known(config, key, position, force=force)
        _edit("edit_checkpoint", config_path, key, as_json=as_json, body={"seq": position})
        return
    if entry is not None:
        raise click.UsageError("--entry needs --from.")
    try:
        exported = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{file.name} is not JSON: {error}") from error
    saved = exported.get("checkpoint") if isinstance(exported, dict) else None
    if not isinstance(saved, dict) or "seq" not in saved:
        raise CommandError(
            f"{file.name} is not an exported checkpoint. Remedy: `pillowd checkpoint export {key}` prints one"
        )
    _require_known(config, key, saved["seq"], force=force)
    _edit("edit_checkpoint", config_path, key, as_json=as_json, body={"exported": exported})


def _require_known(config: Config, key: str, position: Any, *, force: bool) -> Any:
    """Return the position that the source of a configured pillow knows; see `ask_position`."""
    try:
        tail = resolve_configured(key, config)
    except UnknownPillowError:  # only its checkpoint may be left: the edit itself decides
        return position
    # Several daemons that share a pillow refuse: its positions are not the source's.
    return position if force or config.coordination.type == "kafka" else ask_position(config, tail, position)


def _edit(operation: str, config_path: Path, key: str, *, as_json: bool, **body: Any) -> None:
    """Edit the checkpoint, whatever its generation: who types the command has decided."""
    edited = call_control(config_path, operation, writes=True, if_match="*", **name_pillow(key), **body)
    if as_json:
        print_json(edited)
    else:
        before, now = shorten_seq(edited["before"]), shorten_seq(edited["seq"])
        echo(f"{edited['key']}: was at {before}, is at {now} (generation {edited['generation']})")
