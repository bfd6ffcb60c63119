"""`pillowd completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from daemon.cli.exit_codes import CommandError

#: The variable by which the script asks click for completions.
VARIABLE = "_PILLOWD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    For bash, add `eval "$(pillowd completion bash)"` to ~/.bashrc. For zsh, add `eval "$(pillowd completion
    zsh)"` to ~/.zshrc. For fish, run `pillowd completion fish > ~/.config/fish/completions/pillowd.fish`.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"there is no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "pillowd", VARIABLE).source())
