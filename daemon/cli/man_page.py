"""The man page pillowd(1), made from the commands themselves: `python -m daemon.cli.man_page` prints it.

It is written in the man macros that every roff knows (groff_man(7)).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import click

from daemon.cli.introspect import CommandPage, pages
from daemon.cli.options import PLACES

_FILES = {
    ", ".join(map(str, PLACES)): "the configuration, unless --config or $PILLOWD_CONFIG names another",
    "/var/lib/pillowd, ~/.local/state/pillowd": "checkpoints and dead letters, of root and of anybody else",
}
_EXITS = {
    "0": "It worked.",
    "1": "It failed; one line on standard error says why and what to do.",
    "2": "The command was called in a wrong way.",
    "3": "Differences were found.",
    "75": "Something could not be connected to; it may work later.",
    "78": "The configuration is wrong.",
}


def man_page() -> str:
    """The page in roff."""
    root, *commands = pages()
    return "\n".join(_lines(root, commands)) + "\n"


def _lines(root: CommandPage, commands: list[CommandPage]) -> Iterator[str]:
    yield f'.TH PILLOWD 1 "" "pillowd {version("pillowd")}" "User Commands"'
    yield from (".SH NAME", f"pillowd \\- {escaped(_first_small(root.paragraphs[0]))}")
    yield from (".SH SYNOPSIS", ".B pillowd", escaped(root.usage))
    yield ".SH DESCRIPTION"
    yield from _paragraphs(root)
    yield from (".SH OPTIONS", *_options(root), ".SH COMMANDS")
    for command in commands:
        yield f".SS {escaped(command.usage)}"
        yield from (*_paragraphs(command), *_options(command))
    yield from (".SH EXIT STATUS", *_list(_EXITS))
    yield from (".SH FILES", *_list(_FILES))
    yield from (".SH SEE ALSO", "Every command has", r".B \-\-help\c", ".")


def _paragraphs(page: CommandPage) -> Iterator[str]:
    for text in page.paragraphs:
        yield from (".PP", escaped(text))


def _options(page: CommandPage) -> Iterator[str]:
    yield from _list({each.names: each.help for each in page.options})


def _list(entries: dict[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield from (".TP", f".B {escaped(name)}", escaped(text))


def _first_small(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def escaped(text: str) -> str:
    """Text that roff shows as it is: neither a dot at its beginning nor a backslash is a command."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


if __name__ == "__main__":
    click.echo(man_page(), nl=False)
