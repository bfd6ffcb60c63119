"""`pillowd log-level`: show and change what the running daemon logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from daemon.cli.control_client import call_control
from daemon.cli.formatting import format_duration, new_table, print_table
from daemon.cli.options import common_options
from daemon.cli.output import print_json
from daemon.logs.levels import LEVELS, LOGGERS, ROOT


@click.command("log-level")
@click.argument("logger", required=False)
@click.argument("level", required=False)
@click.option("--for", "duration", metavar="DURATION", help="How long to keep it; at most a day. [10m]")
@click.option("--reset", is_flag=True, help="Return to the level of the configuration now.")
@common_options
def log_level(
    *,
    logger: str | None,
    level: str | None,
    duration: str | None,
    reset: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Show what the running daemon logs, or log more or less for a while.

    LOGGER is `pillowd` for everything (the default), or one of the names that the command lists without
    arguments. LEVEL is debug, info, warning or error. The former level comes back after `--for`. To change it
    for good, set `logging.level` in the configuration, and reload that.
    """
    if logger in LEVELS and level is None:
        logger, level = ROOT, logger
    if reset and level is not None:
        raise click.UsageError("--reset excludes a LEVEL.")
    if duration is not None and level is None:
        raise click.UsageError("--for needs a LEVEL.")
    if level is not None:
        body = {"level": level} | ({"for": duration} if duration is not None else {})
        found = [call_control(config_path, "set_logger", name=logger or ROOT, body=body)]
    elif reset:
        found = [call_control(config_path, "restore_logger", name=logger or ROOT)]
    elif logger is not None:
        found = [call_control(config_path, "get_logger", name=logger)]
    else:
        found = call_control(config_path, "list_loggers")["loggers"]
    print_json(found) if as_json else _print_levels(found)


def _print_levels(found: Sequence[Mapping[str, Any]]) -> None:
    table = new_table("logger", "level", "for another", "writes")
    for each in found:
        left = each["seconds_left"]
        table.add_row(
            each["name"], each["level"], "" if left is None else format_duration(left), LOGGERS[each["name"]]
        )
    print_table(table)
