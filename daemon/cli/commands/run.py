"""`pillowd run`."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import click
import structlog

from checkpoints import StoreError
from daemon import tail_lookup
from daemon.app import Daemon
from daemon.checks.functions import check_functions
from daemon.cli.options import config_option
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.logs import setup as logs
from daemon.logs.background_stream import redirect_standard_streams
from daemon.process import failpoints, signals
from daemon.reload.source import ConfigSource
from daemon.tail_lookup import tail_keys
from pillows.clock import SystemClock
from pillows.errors import PillowError
from pillows.redaction import Redactor
from pillows.user_code import describe_error


@click.command()
@config_option
@click.option("--all", "everything", is_flag=True, help="Run all enabled pillows (default).")
@click.option("--pillow-key", "chosen", multiple=True, metavar="KEY", help="Run this pillow; repeatable.")
def run(config_path: Path, everything: bool, chosen: tuple[str, ...]) -> int:
    """Run the pillows until stopped.

    SIGTERM and SIGINT drain the batches in flight, save and exit; a second signal exits at once.
    """
    if everything and chosen:
        raise click.UsageError("--all and --pillow-key exclude each other.")
    config = load(config_path)
    known = tail_keys(config)
    keys = [tail_lookup.resolve_tail(text, known) for text in dict.fromkeys(chosen)]
    if not chosen and (problems := check_functions(config)):
        raise ConfigErrors(problems)
    failpoints.arm_from(os.environ)
    clock = SystemClock()
    with (
        signals.handle_signals() as asked,
        redirect_standard_streams() as stderr,
        logs.configure_logging(
            format=config.logging.format,
            level=config.logging.level,
            stream=stderr,
            clock=clock,
            redactor=Redactor.of_settings(config),
        ) as log,
    ):
        for warning in config.warnings:
            structlog.get_logger("pillowd.config").warning("config.warning", text=str(warning))
        source = ConfigSource(path=config_path, environ=os.environ, chosen=keys or None)
        daemon = Daemon(config, source=source, clock=clock, signals=asked, logs=log)
        try:
            return daemon.run()
        except (PillowError, StoreError, OSError):
            raise  # their text needs no traceback
        except Exception as error:
            stack = "".join(traceback.format_tb(error.__traceback__))
            structlog.get_logger("pillowd.daemon").critical(
                "daemon.crashed", error=describe_error(error), stack=stack
            )
            raise
