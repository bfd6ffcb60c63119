"""List all commands as data, for the man page, the reference and tests."""

from __future__ import annotations

from collections.abc import Iterator

import click
from msgspec import Struct

from daemon.cli.main import pillowd


class Parameter(Struct, frozen=True, kw_only=True):
    """An option.

    Attributes:
        names: how it is written, such as `--config FILE`.
        help: its help text.
    """

    names: str
    help: str


class CommandPage(Struct, frozen=True, kw_only=True):
    """One command.

    Attributes:
        name: the name after those of its groups, such as `checkpoint get`; empty for `pillowd` itself.
        usage: its usage, without `pillowd`.
        paragraphs: its help text.
        options: its options, except `--help`.
        is_group: whether it has commands of its own.
    """

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[Parameter, ...]
    is_group: bool


def list_commands() -> list[CommandPage]:
    """Return every command in the order of `pillowd --help`; groups come before their commands."""
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
