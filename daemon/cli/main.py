"""The command `pillowd`: a table of commands, each loaded when it is called.

`pillowd --help` needs none of what the commands need, so it answers at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from daemon.cli.exit_codes import outcome

#: Command -> where it is, and what it does in a few words.
COMMANDS = {
    "run": ("daemon.cli.run:run", "Runs pillows until it is told to stop."),
    "mirror": (
        "daemon.mirror.command:mirror",
        "Keeps a target equal to a database, with nothing to configure.",
    ),
    "check": ("daemon.cli.check:check", "Says whether the configuration can work."),
    "config": ("daemon.cli.config:config", "Shows the configuration in effect."),
    "list": ("daemon.cli.list:list_pillows", "Lists the configured pillows."),
    "status": ("daemon.cli.pillows:status", "Shows how the pillows are."),
    "pause": ("daemon.cli.pillows:pause", "Stops a pillow until `resume`."),
    "resume": ("daemon.cli.pillows:resume", "Ends a pause."),
    "restart": ("daemon.cli.pillows:restart", "Restarts a pillow, also a failed one."),
    "checkpoint": ("daemon.cli.checkpoint:checkpoint", "Shows and edits how far pillows got."),
    "dead-letter": (
        "daemon.cli.dead_letter:dead_letter",
        "Shows and discards documents that could not be written.",
    ),
    "preview": ("daemon.cli.preview:preview", "Shows what a pillow would do with real documents."),
    "verify": ("daemon.cli.verify:verify", "Compares targets with the source, and repairs them."),
    "store": ("daemon.cli.store:store", "Checks and repairs stores on disk."),
    "completion": ("daemon.cli.completion:completion", "Prints a script for your shell's completion."),
}


class Commands(click.Group):
    """The commands of `COMMANDS` whose module is there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return [name for name, (place, _) in COMMANDS.items() if _exists(place)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _exists(place: str) -> bool:
    return importlib.util.find_spec(place.partition(":")[0]) is not None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show where an unexpected error happened.")
@click.version_option(package_name="pillowd")
def pillowd(debug: bool) -> None:
    """Keeps Elasticsearch, PostgreSQL, SQLite and files in step with CouchDB.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 differences found, 75 could not connect, 78 configuration.
    """
    del debug  # `run_command` looks at it, whatever it is that fails


def run_command(arguments: Sequence[str]) -> int:
    """Runs a command. An error is one line on standard error; a traceback only with `--debug`.

    Args:
        arguments: as given after the program's name.

    Returns:
        The exit code.
    """
    try:
        result: Any = pillowd.main(args=list(arguments), prog_name="pillowd", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001  this is the one place where errors meet the user
        if "--debug" in arguments:
            traceback.print_exception(error)
        if isinstance(error, click.UsageError):
            error.show()
            return error.exit_code
        code, text = outcome(error)
        if text:
            click.echo(f"pillowd: {text}", err=True)
        return code
    finally:
        _flush()
    return result if isinstance(result, int) else 0


def _flush() -> None:
    """Flushes the output here: at exit nobody could say what went wrong."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # the interpreter's own flush would print what nobody can use
