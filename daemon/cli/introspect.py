"""All commands as data, for whatever shows them: the man page, the reference, a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from daemon.cli.main import pillowd


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An option or argument.

    Attributes:
        names: as it is written: `--config FILE`, or the argument's metavar.
        help: what it does.
    """

    names: str
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPage:
    """One command.

    Attributes:
        name: with the groups before it: `checkpoint get`; empty for `pillowd` itself.
        usage: how it is called, without `pillowd`.
        paragraphs: what it does.
        options: its options, `--help` left out.
        is_group: whether it only has commands below it.
    """

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[Parameter, ...]
    is_group: bool


def pages() -> list[CommandPage]:
    """Every command, groups before what is in them, in the order of `pillowd --help`."""
    return list(_walk(pillowd, click.Context(pillowd, info_name="pillowd"), ()))


def _walk(command: click.Command, context: click.Context, way: tuple[str, ...]) -> Iterator[CommandPage]:
    options = [each.get_help_record(context) for each in command.params if isinstance(each, click.Option)]
    pieces = [word for word in command.collect_usage_pieces(context) if word]
    yield CommandPage(
        name=" ".join(way),
        usage=" ".join([*way, *pieces]),
        paragraphs=tuple(" ".join(text.split()) for text in (command.help or "").split("\n\n")),
        options=tuple(Parameter(names=names, help=text) for names, text in filter(None, options)),
        is_group=isinstance(command, click.Group),
    )
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                child = click.Context(inner, info_name=name, parent=context)
                yield from _walk(inner, child, (*way, name))
