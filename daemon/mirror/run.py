"""A mirror's work, from what was typed to what is told at the end.

A module of its own, which the command loads when it is called: that takes a second, in which Ctrl-C is
answered already.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console

from daemon import logs, signals
from daemon.app import Daemon
from daemon.cli import control_client
from daemon.cli.check import probe_connections
from daemon.cli.exit_codes import CommandError, ExitCode, UnreachableError
from daemon.cli.options import print_json
from daemon.config.models import Config
from daemon.mirror.columns import infer, sample
from daemon.mirror.config import LOG_FILE, SOURCE, TARGET, Mirror, prepare, write_config
from daemon.mirror.existing_table import standing_columns
from daemon.mirror.progress import MirrorProgress
from daemon.signals import Signals
from daemon.tail_lookup import tail_keys
from pillows.clock import SystemClock
from pillows.couch.options import CouchConnection
from pillows.redaction import Redactor
from pillows.runtime.status import State, TailStatus

#: A log of an earlier run is begun anew when it has this size.
_LOG_BYTES = 10 * 2**20


def follow(
    wanted: Mirror, *, once: bool, with_columns: bool, write_config_to: str | None, as_json: bool
) -> ExitCode:
    """Does what the command is to do.

    Args:
        wanted: database, target and where the state is.
        once: end when caught up.
        with_columns: of a table: inferred ones; else the whole document alone.
        write_config_to: where to write the configuration (`-`: to print it), and end.
        as_json: print the summary for programs.

    Returns:
        The exit code.

    Raises:
        CommandError, PillowError, OSError: it cannot be done.
    """
    _warn_of_seen(wanted)
    column_types = wanted.support.COLUMN_TYPES
    infer_columns = partial(_infer, column_types=column_types)
    config = prepare(wanted, infer_columns if with_columns else None, find=_standing)
    if write_config_to is not None:
        return _write(wanted, write_config_to)
    _check(config)
    summary = _run(wanted, config, once=once)
    print_json(summary) if as_json else click.echo(_told(summary, has_columns=bool(column_types)))
    return _exit_code(summary, once=once)


def _exit_code(summary: Mapping[str, Any], *, once: bool) -> ExitCode:
    if not once:
        return ExitCode.OK
    if not summary["caught_up"]:
        return ExitCode.FAILED
    return ExitCode.DIFFERENCES if summary["dead_letters"] else ExitCode.OK


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at the one tail with every tick.

    Attributes:
        progress: shows it.
        asked: told to stop when there is nothing more to do.
        once: that is so when it has caught up.
        config: the path of the configuration.
        last: how it was.
        caught_up: whether it has been caught up.
        warned: of rows that other columns were used for.
    """

    progress: MirrorProgress
    asked: Signals
    once: bool
    config: str
    last: TailStatus | None = field(default=None)
    caught_up: bool = False
    warned: bool = False

    def __call__(self, statuses: Sequence[TailStatus]) -> None:
        """One tick."""
        (status,) = statuses
        self.last = replace(status, reason=_with_config(status.reason, self.config))
        if self.last.pipeline_changed_at is not None and not self.warned:
            self.progress.say(_changed(self.last.pillow, self.config))
            self.warned = True
        self.progress.update(self.last)
        # A pass ends with a sweep and a saved checkpoint: only then is it whole.
        if self.last.state is State.LIVE and self.last.seq is not None and self.last.pass_number is None:
            self.caught_up = True
        if self.last.state is State.FAILED or (self.once and self.caught_up):
            self.asked.stop.set()


def _warn_of_seen(wanted: Mirror) -> None:
    if wanted.secrets:
        variables = " and ".join(f"${name}" for name in wanted.secrets)
        click.echo(
            f"A password in a URL can be seen by others on this machine: better set {variables}.", err=True
        )


def _infer(config: Config, column_types: Mapping[str, str]) -> dict[str, str]:
    _check(config)  # it says more of what is wrong than a failed sample
    (pillow,) = config.pillows.values()
    connection = cast("CouchConnection", config.connections[SOURCE].options)
    return infer(sample(connection, pillow.source.database), column_types)


def _standing(config: Config) -> Mapping[str, str] | None:
    _check(config)
    return standing_columns(config, TARGET)


def _check(config: Config) -> None:
    """Connects once before anything runs: a wrong address is told at once, not retried for ever."""
    for finding in probe_connections(config):
        text = f"{finding.place}: {finding.text}"
        if finding.result == "unreachable":
            raise UnreachableError(text)
        if finding.result == "refused":
            raise CommandError(text)


def _write(wanted: Mirror, file: str) -> ExitCode:
    if file == "-":
        write_config(wanted, Path(), into=lambda text: click.echo(text, nl=False))
        return ExitCode.OK
    write_config(wanted, Path(file))
    needs = "".join(f" (set ${name} for it)" for name in wanted.secrets)
    click.echo(f"{file} is written; it goes on from the same place:")
    click.echo(f"  pillowd run --config {file}{needs}")
    return ExitCode.OK


def _run(wanted: Mirror, config: Config, *, once: bool) -> dict[str, Any]:
    """Runs the daemon for this one pillow. Returns what came of it.

    Raises:
        CommandError: the pillow failed.
    """
    clock = SystemClock()
    console = Console(stderr=True)
    with ExitStack() as stack:
        asked = stack.enter_context(signals.handle_signals())
        log = stack.enter_context(_log_file(wanted.folder / LOG_FILE))
        redactor = Redactor.of_settings(config)
        lines = stack.enter_context(
            logs.configure_logging(format="json", level="info", stream=log, clock=clock, redactor=redactor)
        )
        progress = stack.enter_context(MirrorProgress(console, clock))
        watch = Watch(progress=progress, asked=asked, once=once, config=str(wanted.config_path))
        daemon = Daemon(
            config,
            keys=tail_keys(config),
            environ=os.environ,
            clock=clock,
            signals=asked,
            logs=lines,
            watch=watch,
        )
        code = daemon.run()
    if watch.last is not None and watch.last.state is State.FAILED:
        raise CommandError(
            f"{wanted.name}: {redactor.redact(watch.last.reason)}. {_others(str(wanted.config_path))}"
        )
    return _summary(wanted, config, cut=code != ExitCode.OK, caught_up=watch.caught_up)


def _log_file(path: Path) -> Any:
    large = path.exists() and path.stat().st_size > _LOG_BYTES
    return path.open("w" if large else "a", encoding="utf-8")


def _summary(wanted: Mirror, config: Config, *, cut: bool, caught_up: bool) -> dict[str, Any]:
    with control_client.open_control(config) as call:
        (saved,) = call("status")["pillows"]
    return {
        "name": wanted.name,
        "source": saved["source"],
        "target": wanted.target.type,
        "changes": saved["changes"],
        "dead_letters": saved["dead_letters"],
        "caught_up": caught_up,
        "cut": cut,
        "config": str(wanted.config_path),
    }


def _told(summary: dict[str, Any], *, has_columns: bool) -> str:
    """The summary for people: how far it is, and how to go on."""
    how = "caught up" if summary["caught_up"] else "stopped before it was caught up"
    lines = [f"{summary['name']}: {how}, {summary['changes']:,} changes so far"]
    if summary["dead_letters"]:
        lines.append(
            f"{summary['dead_letters']} could not be written (dead letters); why: "
            f"pillowd dead-letter list {summary['name']} --config {shlex.quote(summary['config'])}"
        )
        if has_columns:
            lines.append(
                "If a column is to blame: the same command with `--columns none --name OTHER` copies every "
                "document whole into another table."
            )
    lines.append(f"The same command goes on from here. {_others(summary['config'])}")
    return "\n".join(lines)


def _changed(name: str, config: str) -> str:
    text = (
        "warning: the columns are not those that earlier rows were written with; they keep their old form "
        f"until `pillowd checkpoint reset {name}`"
    )
    return _with_config(text, config)


def _with_config(text: str, config: str) -> str:
    """A text in which every command of ours can be pasted: with what it needs to find this mirror."""
    return re.sub(r"`(pillowd [^`]+)`", lambda found: f"`{found[1]} --config {shlex.quote(config)}`", text)


def _others(config: str) -> str:
    """How to give any other command what this one remembers."""
    return f"Other commands, such as `pillowd status`, take\n  --config {shlex.quote(config)}"
