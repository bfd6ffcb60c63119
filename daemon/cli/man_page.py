"""Print the man page pillowd(1), made from the commands: `python -m daemon.cli.man_page`.

It uses the man macros that every roff knows (groff_man(7)). An installed pillowd makes its own page, so this
needs none of the tools that build the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import click

from daemon.cli.introspect import CommandPage, list_commands
from daemon.cli.options import PLACES

_FILES = {
    ", ".join(map(str, PLACES)): "the configuration, unless --config or $PILLOWD_CONFIG names another",
    "/var/lib/pillowd, ~/.local/state/pillowd": "checkpoints and dead letters, of root and of other users",
}
_EXITS = {
    "0": "Success.",
    "1": "Failure; one line on standard error has the reason and the remedy.",
    "2": "Wrong usage.",
    "3": "Differences were found.",
    "75": "The daemon, a source or a target could not be reached; it may work later.",
    "78": "The configuration has problems.",
}


def format_man_page() -> str:
    """Return the page in roff."""
    root, *commands = list_commands()
    return "\n".join(_lines(root, commands)) + "\n"


def _lines(root: CommandPage, commands: list[CommandPage]) -> Iterator[str]:
    yield f'.TH PILLOWD 1 "" "pillowd {version("pillowd")}" "User Commands"'
    yield from (".SH NAME", f"pillowd \\- {escape(_lower_first(root.paragraphs[0]))}")
    yield from (".SH SYNOPSIS", ".B pillowd", escape(root.usage))
    yield ".SH DESCRIPTION"
    yield from _paragraphs(root)
    yield from (".SH OPTIONS", *_options(root), ".SH COMMANDS")
    for command in commands:
        yield f".SS {escape(command.usage)}"
        yield from (*_paragraphs(command), *_options(command))
    yield from (".SH EXIT STATUS", *_list(_EXITS))
    yield from (".SH FILES", *_list(_FILES))
    yield from (".SH SEE ALSO", "Every command has", r".B \-\-help\c", ".")


def _paragraphs(page: CommandPage) -> Iterator[str]:
    for text in page.paragraphs:
        yield from (".PP", escape(text))


def _options(page: CommandPage) -> Iterator[str]:
    yield from _list({each.names: each.help for each in page.options})


def _list(entries: dict[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield from (".TP", f".B {escape(name)}", escape(text))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def escape(text: str) -> str:
    """Return text for roff in which a leading dot or a backslash does not begin a command."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


if __name__ == "__main__":
    click.echo(format_man_page(), nl=False)
