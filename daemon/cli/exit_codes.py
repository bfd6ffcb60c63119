"""What a command ends with: the exit code, and one line that says why."""

from __future__ import annotations

from enum import IntEnum

import click

from checkpoints import StoreError, StoreUnavailable
from daemon.config.problems import ConfigErrors
from daemon.tail_lookup import UnknownPillowError
from pillows.errors import ConfigError, PillowError
from pillows.redaction import Redactor


class Exit(IntEnum):
    """The exit codes; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits(3)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DIFFERENCES = 3
    UNREACHABLE = 75
    CONFIG = 78


class CommandError(Exception):
    """The command failed for a reason that its text tells.

    Attributes:
        exit_code: what the process ends with.
    """

    exit_code = Exit.FAILED


class UnreachableError(CommandError):
    """Something that was needed could not be connected to."""

    exit_code = Exit.UNREACHABLE


class NotConfiguredError(CommandError):
    """There is no configuration."""

    exit_code = Exit.CONFIG


#: Kinds of errors -> the exit code; the first that fits.
_CODES: tuple[tuple[tuple[type[BaseException], ...], Exit], ...] = (
    ((ConfigError,), Exit.CONFIG),
    ((UnknownPillowError,), Exit.USAGE),
    ((StoreUnavailable,), Exit.UNREACHABLE),
    ((PillowError, StoreError, OSError, click.Abort, KeyboardInterrupt), Exit.FAILED),
)


def outcome(error: BaseException) -> tuple[int, str]:
    """The exit code and the text for whatever ended a command.

    Returns:
        The code; and the text, empty where there is nothing to say.
    """
    code, text = _outcome(error)
    # Mistakes were masked when they were collected, and `auth.password: is missing` tells no secret.
    return int(code), text if isinstance(error, ConfigErrors) else Redactor().redact(text)


def _outcome(error: BaseException) -> tuple[int, str]:
    if isinstance(error, SystemExit):  # click answered a shell that asked for completions
        error = click.exceptions.Exit(int(error.code or 0))
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, BrokenPipeError):
        return Exit.FAILED, ""  # whoever read the output has seen enough
    if isinstance(error, click.ClickException | CommandError):
        told = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return error.exit_code, told
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code, str(error) or "interrupted"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Exit.FAILED, f"unexpected {what} (`pillowd --debug ...` shows where)"
