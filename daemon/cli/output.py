"""Print on the terminal, or for a program. Nothing of a command is printed in another way."""

from __future__ import annotations

import io
import json
from typing import Any

import click

from daemon.printable import printable_json, printable_lines


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text to standard output or standard error, as `printable` shows it."""
    click.echo(printable_lines(text), err=err, nl=nl)


def print_usage_error(error: click.UsageError) -> None:
    """Print the usage and the error to standard error."""
    shown = io.StringIO()
    error.show(shown)
    echo(shown.getvalue(), err=True, nl=False)


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    click.echo(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(printable_json(json.dumps(value)))
