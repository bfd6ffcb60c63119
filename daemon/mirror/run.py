"""Run a mirror, from the command line to the summary.

The command imports this module only when it is called, since the import takes a second.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace
from rich.console import Console

from daemon.app import Daemon
from daemon.cli import control_client
from daemon.cli.commands.config.check import Finding, probe_connections
from daemon.cli.exit_codes import CommandError, ExitCode, UnreachableError
from daemon.cli.output import echo, print_json
from daemon.config.models import Config
from daemon.logs import setup as logs
from daemon.mirror.columns import infer_columns, sample_documents
from daemon.mirror.config import LOG_FILE, SOURCE, TARGET, Mirror, prepare, write_config
from daemon.mirror.existing_table import find_existing_columns
from daemon.mirror.progress import MirrorProgress
from daemon.mirror.targets import describe_unescaped
from daemon.process.signals import Signals, handle_signals
from daemon.reload.source import ConfigSource
from pillows.clock import SystemClock
from pillows.couch.options import CouchConnection
from pillows.errors import PillowError
from pillows.redaction import Redactor
from pillows.runtime.status import State, TailStatus

#: Parts of the errors of transports and `start_decision` about a place that this mirror does not own.
_TAKEN = (
    "another pillow did, ",
    "was not written by ",
    "belongs to pillow ",
    "was not created by pillowd",
    "is an index, so no alias can have that name",
)

#: Size at which the next run truncates the log.
_MAX_LOG_BYTES = 10 * 2**20


def run_mirror(
    mirror: Mirror, *, once: bool, with_columns: bool, write_config_to: str | None, as_json: bool
) -> ExitCode:
    """Run the command.

    Args:
        mirror: database, target and folder.
        once: stop when caught up.
        with_columns: infer the columns of a table; otherwise write the whole document alone.
        write_config_to: only write the configuration to this file (`-` is standard output).
        as_json: print the summary as JSON.

    Returns:
        The exit code.

    Raises:
        CommandError, PillowError, OSError: the command failed.
    """
    _warn_of_visible_passwords(mirror)
    column_types = mirror.support.COLUMN_TYPES
    choose = partial(_infer_columns, column_types=column_types)
    config = prepare(mirror, choose if with_columns else None, find=_find_existing)
    if write_config_to is None or (with_columns and column_types):  # columns are chosen by source and target
        _require_connections(config)
    if write_config_to is not None:
        return _write_config(mirror, write_config_to)
    summary = _run(mirror, config, once=once)
    print_json(summary) if as_json else echo(_format_summary(summary, has_columns=bool(column_types)))
    return _to_exit_code(summary, once=once)


def _to_exit_code(summary: Mapping[str, Any], *, once: bool) -> ExitCode:
    if not once:
        return ExitCode.OK
    if not summary["caught_up"]:
        return ExitCode.FAILED
    return ExitCode.DIFFERENCES if summary["dead_letters"] else ExitCode.OK


@dataclass(slots=True, kw_only=True)
class MirrorWatcher:
    """Shows the status of the one tail with every tick, and stops the daemon when the mirror is done.

    Attributes:
        progress: shows the status.
        signals: the signals, by which the daemon is stopped.
        once: stop when caught up.
        config: path of the configuration.
        last: the last status.
        caught_up: whether the mirror has ever been caught up.
        warned: whether the changed columns have been reported.
    """

    progress: MirrorProgress
    signals: Signals
    once: bool
    config: str
    last: TailStatus | None = field(default=None)
    caught_up: bool = False
    warned: bool = False

    def __call__(self, statuses: Sequence[TailStatus]) -> None:
        """Handle one tick."""
        (status,) = statuses
        self.last = replace(status, reason=_to_mirrors_words(status.reason, self.config))
        if self.last.pipeline_changed_at is not None and not self.warned:
            self.progress.print(_format_column_warning(self.last.pillow, self.config))
            self.warned = True
        self.progress.update(self.last)
        # A pass is complete only after its sweep and a saved checkpoint.
        self.caught_up = self.caught_up or is_caught_up(self.last)
        if self.last.state is State.FAILED or (self.once and self.caught_up):
            self.signals.stop.set()


def is_caught_up(status: TailStatus) -> bool:
    """Return whether a pass is complete, with its sweep and its checkpoint saved, of every database."""
    if status.databases is not None:
        return status.state is State.LIVE and not {"queued", "active"} & status.databases.keys()
    return status.state is State.LIVE and status.seq is not None and status.pass_number is None


def _warn_of_visible_passwords(mirror: Mirror) -> None:
    if mirror.secrets:
        variables = " and ".join(f"${name}" for name in mirror.secrets)
        echo(f"warning: other users can see a password in a URL; set {variables} instead", err=True)


def _infer_columns(config: Config, column_types: Mapping[str, str]) -> dict[str, str]:
    (pillow,) = config.pillows.values()
    if pillow.source.databases:  # whole documents: a sample of one database says little of the others
        return {}
    connection = cast("CouchConnection", config.connections[SOURCE].options)
    with _explained(config):
        return infer_columns(sample_documents(connection, pillow.source.database), column_types)


def _find_existing(config: Config) -> Mapping[str, str] | None:
    with _explained(config):
        return find_existing_columns(config, TARGET)


@contextmanager
def _explained(config: Config) -> Iterator[None]:
    """Look for the reason of an error in the connections, whose own errors say more."""
    try:
        yield
    except PillowError:
        _require_connections(config)
        raise


def _require_connections(config: Config) -> None:
    """Connect once before the daemon runs: the daemon would retry a wrong address forever."""
    for finding in probe_connections(config):
        text = f"{finding.place}: {_with_option(finding)}{_hint_at_name(config, finding)}"
        if finding.result == "unreachable":
            raise UnreachableError(text)
        if finding.result == "refused":
            raise CommandError(text)


def _with_option(finding: Finding) -> str:
    """Return a finding's text, whose remedy names an option instead of a key of a configuration."""
    option = "--source-ca" if _is_of_source(finding) else "--target-ca"
    key = r"(the connection's )?`ca_bundle`( to its certificate authority)?"
    return re.sub(key, f"`{option} FILE`", finding.text)


def _is_of_source(finding: Finding) -> bool:
    return f": source {SOURCE}/" in finding.place


def _hint_at_name(config: Config, finding: Finding) -> str:
    """Return how to write the URL if its path was meant as the name of a database that does not exist."""
    (pillow,) = config.pillows.values()
    if " 404 " not in finding.text or not _is_of_source(finding):
        return ""
    connection = cast("CouchConnection", config.connections[SOURCE].options)
    hint = describe_unescaped(connection.url, pillow.source.database)
    return f" Hint: {hint}" if hint else ""


def _write_config(mirror: Mirror, file: str) -> ExitCode:
    if file == "-":
        write_config(mirror, Path(), into=lambda text: echo(text, nl=False))
        return ExitCode.OK
    write_config(mirror, Path(file))
    needs = "".join(f" (set ${name} first)" for name in mirror.secrets)
    echo(f"{file} is written. Run it to continue from the same position:")
    echo(f"  pillowd run --config {file}{needs}")
    return ExitCode.OK


def _run(mirror: Mirror, config: Config, *, once: bool) -> dict[str, Any]:
    """Run the daemon for this one pillow, and return the summary.

    Raises:
        CommandError: the pillow failed.
    """
    clock = SystemClock()
    console = Console(stderr=True)
    with ExitStack() as stack:
        signals = stack.enter_context(handle_signals())
        log = stack.enter_context(_open_log(mirror.folder / LOG_FILE))
        redactor = Redactor.of_settings(config)
        lines = stack.enter_context(
            logs.configure_logging(format="json", level="info", stream=log, clock=clock, redactor=redactor)
        )
        progress = stack.enter_context(MirrorProgress(console, clock))
        watcher = MirrorWatcher(progress=progress, signals=signals, once=once, config=str(mirror.config_path))
        daemon = Daemon(
            config,
            source=ConfigSource(path=None, environ=os.environ),
            clock=clock,
            signals=signals,
            logs=lines,
            watch=watcher,
        )
        code = daemon.run()
    if watcher.last is not None and watcher.last.state is State.FAILED:
        hint = _format_config_hint(str(mirror.config_path))
        raise CommandError(f"{mirror.name}: {redactor.redact(watcher.last.reason)}. {hint}")
    return _make_summary(mirror, config, cut=code != ExitCode.OK, caught_up=watcher.caught_up)


def _open_log(path: Path) -> Any:
    is_large = path.exists() and path.stat().st_size > _MAX_LOG_BYTES
    return open(path, "w" if is_large else "a", encoding="utf-8", opener=_open_private)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_summary(mirror: Mirror, config: Config, *, cut: bool, caught_up: bool) -> dict[str, Any]:
    with control_client.open_control(config) as call:
        (saved,) = control_client.list_pillows(call)
    return {
        "name": mirror.name,
        "source": saved["source"],
        "target": mirror.target.type,
        "changes": saved["changes"],
        "dead_letters": saved["dead_letters"],
        "caught_up": caught_up,
        "cut": cut,
        "config": str(mirror.config_path),
    }


def _format_summary(summary: dict[str, Any], *, has_columns: bool) -> str:
    """Return the summary for people."""
    state = "caught up" if summary["caught_up"] else "stopped before it was caught up"
    lines = [f"{summary['name']}: {state}, {summary['changes']:,} changes so far"]
    if summary["dead_letters"]:
        lines.append(
            f"{summary['dead_letters']} could not be written (dead letters). To list them, run\n  "
            f"pillowd dead-letter list {summary['name']} --config {shlex.quote(summary['config'])}"
        )
        if has_columns:
            lines.append(
                "If a column is the reason, add `--columns none --name OTHER` to the same command: it copies "
                "whole documents into another table."
            )
    lines.append(f"Run the same command again to continue. {_format_config_hint(summary['config'])}")
    return "\n".join(lines)


def _format_column_warning(name: str, config: str) -> str:
    text = (
        "warning: the columns have changed; rows that were written before keep their old form until you run "
        f"`pillowd checkpoint reset {name}`"
    )
    return _with_config(text, config)


def _with_other_name(reason: str) -> str:
    """Return a reason whose remedy takes nothing from the pillow that has the place: it is another mirror.

    Databases such as `a-b` and `a_b` have the same name at default.
    """
    what, _, _ = reason.partition(" Remedy: ")
    if not any(said in what for said in _TAKEN):
        return reason
    return f"{what} Remedy: add `--name OTHER` to the same command, for another table, index or file"


def _to_mirrors_words(reason: str, config: str) -> str:
    """Return a reason with remedies for a mirror: it has options instead of settings, and runs again."""
    reason = reason.replace("`on_recreated: reload`", "`--on-recreated reload`")
    reason = re.sub(r"`pillowd restart [^`]+`", "run the same command again", reason)
    return _with_config(_with_other_name(reason), config)


def _with_config(text: str, config: str) -> str:
    """Return a text in which every `pillowd` command has the option `--config`, so that it can be pasted."""
    return re.sub(r"`(pillowd [^`]+)`", lambda found: f"`{found[1]} --config {shlex.quote(config)}`", text)


def _format_config_hint(config: str) -> str:
    """Return the option that other commands need for this mirror."""
    return f"For other commands, such as `pillowd status`, add\n  --config {shlex.quote(config)}"
