"""`pillowd completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from daemon.cli.exit_codes import CommandError

#: click asks for completions through this variable.
VARIABLE = "_PILLOWD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Prints the script that lets SHELL complete commands and options.

    For bash, put `eval "$(pillowd completion bash)"` into ~/.bashrc; for zsh, the same with zsh into
    ~/.zshrc; for fish, `pillowd completion fish > ~/.config/fish/completions/pillowd.fish`.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"there is no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "pillowd", VARIABLE).source())
