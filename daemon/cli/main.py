"""The command `pillowd`: a table of commands, each imported only when it is called.

So `pillowd --help` imports no command, and answers at once.
"""

from __future__ import annotations

import gc
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from daemon.cli.exit_codes import to_exit
from daemon.cli.output import echo, print_usage_error
from pillows.suggest import find_similar

#: Command -> `module:function`, and its line in `pillowd --help`.
COMMANDS = {
    "run": ("daemon.cli.commands.run:run", "Run the pillows until stopped."),
    "mirror": (
        "daemon.mirror.command:mirror",
        "Keep a target equal to a database, without a configuration file.",
    ),
    "check": (
        "daemon.cli.commands.config.check:check",
        "Validate the configuration and import its Python functions.",
    ),
    "config": ("daemon.cli.commands.config.show:config", "Show the configuration in effect."),
    "list": ("daemon.cli.commands.config.list:list_pillows", "List the configured pillows."),
    "status": ("daemon.cli.commands.operate.status:status", "Show the state of the pillows."),
    "top": ("daemon.cli.commands.operate.top:top", "Show all pillows live, the worst first."),
    "tap": ("daemon.cli.commands.operate.tap:tap", "Show samples of the changes or rows of a pillow."),
    "pause": ("daemon.cli.commands.operate.pause:pause", "Stop a pillow until `resume`."),
    "resume": ("daemon.cli.commands.operate.pause:resume", "Start a paused pillow."),
    "databases": (
        "daemon.cli.commands.operate.databases:databases",
        "List the databases of a pillow that reads several.",
    ),
    "restart": ("daemon.cli.commands.operate.pause:restart", "Restart a pillow, even a failed one."),
    "reload": (
        "daemon.cli.commands.operate.reload:reload",
        "Have the daemon take up a changed configuration.",
    ),
    "log-level": (
        "daemon.cli.commands.operate.log_level:log_level",
        "Show what the daemon logs, or log more for a while.",
    ),
    "rebuild": (
        "daemon.cli.commands.operate.rebuild:rebuild",
        "Build new outputs of a pillow beside the live ones.",
    ),
    "checkpoint": ("daemon.cli.commands.state.checkpoint:checkpoint", "Show and edit checkpoints."),
    "dead-letter": (
        "daemon.cli.commands.state.dead_letter:dead_letter",
        "Show, retry and discard dead letters.",
    ),
    "preview": (
        "daemon.cli.commands.config.preview:preview",
        "Run a pillow on real documents, without writing.",
    ),
    "verify": (
        "daemon.cli.commands.operate.verify:verify",
        "Compare targets with the source, and repair differences.",
    ),
    "backfill": (
        "daemon.cli.commands.operate.backfill:backfill",
        "Send chosen documents through a pillow again, while it follows its feed.",
    ),
    "index": (
        "daemon.cli.commands.targets.index:index",
        "List the indices of a pillow, and remove old ones.",
    ),
    "store": ("daemon.cli.commands.state.store:store", "Check and repair stores on disk."),
    "completion": (
        "daemon.cli.commands.completion:completion",
        "Print the completion script for your shell.",
    ),
}


#: New objects between two looks for garbage; by default 700.
_OBJECTS_BETWEEN_LOOKS = 10_000


@contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage during imports, nor later among their objects: that took a tenth of the start.

    Later it is looked for less often than by default. Hardly anything that a document passes through is in a
    cycle, and the looks took a fifteenth of a catch-up.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_LOOKS)
        gc.enable()


class Commands(click.Group):
    """The commands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:  # the shell asks for completions
                return None
            similar = find_similar(cmd_name, COMMANDS)
            hint = f" Did you mean `{similar}`?" if similar else ""
            raise click.UsageError(f"No such command `{cmd_name}`.{hint}", ctx)
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        with _without_collections():
            command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _print_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from daemon.commit import describe_version  # noqa: PLC0415  no other command needs it

        echo(describe_version())
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Print a traceback for every error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and the commit, and exit.",
)
def pillowd(debug: bool) -> None:
    """Keep Elasticsearch, OpenSearch, PostgreSQL, SQLite, Kafka, files and webhooks in sync with CouchDB.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 differences found, 75 could not connect, 78 configuration.
    """
    del debug  # `run_command` reads it from the arguments, so that it counts for every failure


def run_command(arguments: Sequence[str]) -> int:
    """Run a command. Errors are one line on standard error; `--debug` adds a traceback.

    Args:
        arguments: those after the program's name.

    Returns:
        The exit code.
    """
    try:
        result: Any = pillowd.main(args=list(arguments), prog_name="pillowd", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001  the one place where errors reach the user
        if "--debug" in arguments:
            traceback.print_exception(error)
        if isinstance(error, click.UsageError):
            print_usage_error(error)
            return error.exit_code
        code, text = to_exit(error)
        if text:
            echo(f"pillowd: {text}", err=True)
        return code
    finally:
        _flush()
    return result if isinstance(result, int) else 0


def _flush() -> None:
    """Flush the output now: an error at exit could not be reported."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter's own flush would print a traceback
