"""The exit codes of commands, and the errors that choose them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click

from checkpoints import StoreError, StoreUnavailable
from daemon.config.problems import ConfigErrors
from daemon.errors import UnknownPillowError
from pillows.errors import ConfigError, PillowError, RetryableError
from pillows.redaction import Redactor


class ExitCode(IntEnum):
    """The exit codes; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits(3)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DIFFERENCES = 3
    UNREACHABLE = 75
    CONFIG = 78


class CommandError(Exception):
    """A command failed; the text says why.

    Attributes:
        exit_code: the exit code of the process.
    """

    exit_code = ExitCode.FAILED


class UnreachableError(CommandError):
    """The daemon, a source or a target cannot be reached."""

    exit_code = ExitCode.UNREACHABLE


class StandbyError(UnreachableError):
    """Another machine runs the pillows, or none does."""


class NotConfiguredError(CommandError):
    """There is no configuration file."""

    exit_code = ExitCode.CONFIG


#: Types of errors -> exit code; the first match counts.
_CODES: tuple[tuple[tuple[type[BaseException], ...], ExitCode], ...] = (
    ((ConfigError,), ExitCode.CONFIG),
    ((UnknownPillowError,), ExitCode.USAGE),
    ((StoreUnavailable,), ExitCode.UNREACHABLE),
    ((PillowError, StoreError, OSError, click.Abort, KeyboardInterrupt), ExitCode.FAILED),
)


@contextmanager
def translate_unreachable(redactor: Redactor) -> Iterator[None]:
    """Turn a retryable error of a source or target into an `UnreachableError`."""
    try:
        yield
    except RetryableError as error:
        raise UnreachableError(redactor.redact(str(error))) from error


def to_exit(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the text for an exception that ended a command.

    Returns:
        The code; and the text, which may be empty.
    """
    code, text = _classify(error)
    # ConfigErrors are masked already, and `auth.password: is missing` must stay readable.
    return int(code), text if isinstance(error, ConfigErrors) else Redactor().redact(text)


def _classify(error: BaseException) -> tuple[int, str]:
    if isinstance(error, SystemExit):  # click has answered a request for completions
        error = click.exceptions.Exit(int(error.code or 0))
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, BrokenPipeError):
        return ExitCode.FAILED, ""  # the reader of the output, such as `head`, has ended
    if isinstance(error, click.ClickException | CommandError):
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return error.exit_code, text
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code, str(error) or "interrupted"
    kind = type(error).__name__
    text = f"{kind}: {error}" if str(error) else kind
    return ExitCode.FAILED, f"unexpected {text}; run `pillowd --debug ...` to see where"
