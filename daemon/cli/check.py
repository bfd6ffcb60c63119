"""`pillowd check`: can this configuration work?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import click
import gevent
from rich.markup import escape

from checkpoints import TailKey
from daemon.assembly import build_feed, build_transport, tail_keys
from daemon.checks.functions import check_imports
from daemon.checks.pillow_tests import check_cases
from daemon.checks.transports import check_transports
from daemon.cli.exit_codes import Exit
from daemon.cli.formatting import show, table
from daemon.cli.options import config_option, json_option, print_json
from daemon.config.load import load
from daemon.config.models import Config, TransportConfig
from daemon.config.problems import ConfigErrors
from pillows.clock import SystemClock
from pillows.errors import RetryableError
from pillows.observer import Observer
from pillows.redaction import Redactor
from pillows.stages.filters import KeepAll

#: How long one source or target may take to answer.
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of connecting to one place.

    Attributes:
        place: the pillow, and its source or transport.
        result: `ok`; `unreachable`, which may pass by itself; `refused`, which will not.
        text: what was found.
    """

    place: str
    result: Literal["ok", "unreachable", "refused"]
    text: str


@click.command()
@config_option
@click.option("--connect", is_flag=True, help="Also connect to every source and target.")
@json_option
def check(config_path: Path, connect: bool, as_json: bool) -> int:
    """Says whether the configuration can work: valid, its functions importable, its places there.

    It also runs the `tests` of the pillows.
    """
    config = load(config_path, checks=(check_imports, check_transports))
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    if mistakes := check_cases(config):
        raise ConfigErrors(mistakes)
    findings = list(connections(config)) if connect else []
    if as_json:
        print_json(
            {"valid": True, "pillows": len(config.pillows), "connections": list(map(asdict, findings))}
        )
    else:
        _show(config_path, config, findings)
    return exit_code(findings)


def connections(config: Config) -> Iterator[Finding]:
    """Connects to every source and target of every enabled pillow, and changes nothing there."""
    redactor = Redactor.of_settings(config)
    for key in tail_keys(config):
        yield _try(f"{key.pillow}: source {key.source}", partial(_identify, config, key), redactor)
        for entry in config.tails[key.pillow].transport:
            yield _try(f"{key.pillow}: transport {entry.name}", partial(_look, config, key, entry), redactor)


def exit_code(findings: list[Finding]) -> Exit:
    """What will not pass by itself outranks what may."""
    results = {finding.result for finding in findings}
    if "refused" in results:
        return Exit.FAILED
    return Exit.UNREACHABLE if "unreachable" in results else Exit.OK


def _try(place: str, look: Callable[[], str], redactor: Redactor) -> Finding:
    try:
        with gevent.Timeout(_ANSWER_SECONDS, TimeoutError(f"no answer within {_ANSWER_SECONDS:g} s")):
            return Finding(place=place, result="ok", text=look())
    except (RetryableError, OSError) as error:
        return Finding(place=place, result="unreachable", text=redactor.redact(str(error)))
    except Exception as error:  # noqa: BLE001  whatever is wrong with one place, the others are looked at
        return Finding(
            place=place, result="refused", text=redactor.redact(str(error) or type(error).__name__)
        )


def _identify(config: Config, key: TailKey) -> str:
    feed = build_feed(config, key, KeepAll(), clock=SystemClock(), observer=Observer())
    with closing(feed):
        identity = feed.identify()
    return f"database created at {identity.instance_start_time or 'a time the server does not tell'}"


def _look(config: Config, key: TailKey, entry: TransportConfig) -> str:
    with closing(build_transport(config, key, entry)) as transport:
        return transport.check()


def _show(config_path: Path, config: Config, findings: list[Finding]) -> None:
    made = table("place", "", "found")
    colours = {"ok": "green", "unreachable": "yellow", "refused": "red"}
    for finding in findings:
        colour = colours[finding.result]
        made.add_row(escape(finding.place), f"[{colour}]{finding.result}[/]", escape(finding.text))
    if findings:
        show(made)
    click.echo(f"{config_path}: the configuration is valid, {len(config.pillows)} pillows")
