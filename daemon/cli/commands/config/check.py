"""`pillowd check`: validate a configuration, and optionally connect to its sources and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import gevent
from msgspec import Struct
from msgspec.structs import asdict
from rich.markup import escape

from checkpoints import Seq, TailKey
from daemon.assembly.feeds import build_feed
from daemon.assembly.pipelines import build_pipeline, build_transport
from daemon.assembly.prefilters import make_prefilter
from daemon.checks.functions import check_functions
from daemon.checks.pillow_tests import check_pillow_tests
from daemon.checks.transports import check_transports
from daemon.cli.exit_codes import ExitCode
from daemon.cli.formatting import new_table, print_table
from daemon.cli.options import config_option, json_option
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.config.models import Config, TransportConfig
from daemon.config.problems import ConfigErrors
from daemon.coordination.coordinator import describe_service
from daemon.http.certificate import read_certificate
from daemon.tail_lookup import tail_keys
from pillows.clock import SystemClock
from pillows.couch.client import CouchClient
from pillows.databases.listing import PAGE, DatabaseList, NotListedError
from pillows.databases.names import DatabaseNames
from pillows.errors import ConfigError, PillowError, RetryableError
from pillows.observer import Observer
from pillows.preview import next_changes, try_changes
from pillows.redaction import Redactor
from pillows.transports.base import Transport
from pillows.user_code import confine, describe_error

#: Changes whose documents are tried.
SAMPLE_CHANGES = 20

#: Longest wait for one source or target.
_ANSWER_SECONDS = 30.0


class Finding(Struct, frozen=True, kw_only=True):
    """The result of connecting to one source or target.

    Attributes:
        place: pillow, and source or transport.
        result: `ok`, `unreachable` (may pass by itself) or `refused` (will not).
        text: the answer or the error.
    """

    place: str
    result: Literal["ok", "unreachable", "refused"]
    text: str


@click.command()
@config_option
@click.option(
    "--connect",
    is_flag=True,
    help="Also connect to every source and target; where a write can be undone, try the first documents.",
)
@json_option
def check(config_path: Path, connect: bool, as_json: bool) -> int:
    """Validate the configuration and import its Python functions.

    Also run the `tests` of the pillows.
    """
    config = load(config_path, checks=(check_functions, check_transports))
    for warning in config.warnings:
        echo(f"warning: {warning}", err=True)
    if problems := check_pillow_tests(config):
        raise ConfigErrors(problems)
    tcp = config.daemon.admin.tcp
    if tcp is not None and tcp.tls is not None:
        read_certificate(tcp.tls, SystemClock().wall())
    findings = list(probe_connections(config)) if connect else []
    if as_json:
        print_json(
            {"valid": True, "pillows": len(config.pillows), "connections": list(map(asdict, findings))}
        )
    else:
        _print_findings(config_path, config, findings)
    return to_exit_code(findings)


def probe_connections(config: Config) -> Iterator[Finding]:
    """Connect to every source and target of every enabled pillow, without leaving anything changed there."""
    redactor = Redactor.of_settings(config)
    if config.coordination.type != "none":
        place = f"coordination: service {config.coordination.service}"
        yield _try(place, partial(describe_service, config), redactor)
    for key in tail_keys(config):
        yield _try(f"{key.pillow}: source {key.source}", partial(_identify, config, key), redactor)
        for entry in config.tails[key.pillow].transport:
            yield _try(
                f"{key.pillow}: transport {entry.name}", partial(_check_target, config, key, entry), redactor
            )


def to_exit_code(findings: list[Finding]) -> ExitCode:
    """Return the exit code of the worst finding: `refused` outranks `unreachable`."""
    results = {finding.result for finding in findings}
    if "refused" in results:
        return ExitCode.FAILED
    return ExitCode.UNREACHABLE if "unreachable" in results else ExitCode.OK


def _try(place: str, probe: Callable[[], str], redactor: Redactor) -> Finding:
    try:
        with gevent.Timeout(_ANSWER_SECONDS, TimeoutError(f"no answer within {_ANSWER_SECONDS:g} s")):
            return Finding(place=place, result="ok", text=probe())
    except (RetryableError, OSError) as error:
        return Finding(place=place, result="unreachable", text=redactor.redact(str(error)))
    except PillowError as error:
        return Finding(place=place, result="refused", text=redactor.redact(str(error)))
    except BaseException as error:  # noqa: BLE001  check the others all the same
        reason = describe_error(confine(error), with_text=True)
        return Finding(place=place, result="refused", text=redactor.redact(reason))


def _identify(config: Config, key: TailKey) -> str:
    if config.tails[key.pillow].source.databases:
        return _count_databases(config, key)
    feed = build_feed(config, key, None, clock=SystemClock(), observer=Observer())
    with closing(feed):
        identity = feed.identify()
    return f"database created at {identity.instance_start_time or 'an unknown time'}"


def _count_databases(config: Config, key: TailKey) -> str:
    """Return what the first pages of a server's databases say about a pillow that reads several."""
    source = config.tails[key.pillow].source
    connection: Any = config.connections[source.connection].options
    names = DatabaseNames(source.databases, source.exclude)
    with closing(CouchClient(connection)) as couch:
        listed = DatabaseList(couch)
        try:
            first = [next(iter(listed.pages(*each)), ()) for each in names.ranges]
        except NotListedError as error:
            return f"warning: {error}"
    matching = [each.name for page in first for each in page if names.matches(each.name)]
    more = " or more" if any(len(page) == PAGE for page in first) else ""
    return f"{len(matching)} databases{more}"


def _check_target(config: Config, key: TailKey, entry: TransportConfig) -> str:
    with closing(build_transport(config, key, entry)) as transport:
        return f"{transport.check()}; {_try_sample(config, key, transport)}"


def _try_sample(config: Config, key: TailKey, transport: Transport) -> str:
    """Write the first documents of the source in transactions that are rolled back.

    Raises:
        ConfigError: the target refuses each of them.
    """
    settings = config.tails[key.pillow]
    if settings.source.databases:
        return "no document was tried: `pillowd preview` shows those of one database"
    pillow = build_pipeline(config, key)
    feed = build_feed(config, key, make_prefilter(pillow.filter), clock=SystemClock(), observer=Observer())
    with closing(feed):
        try:
            changes = next_changes(feed, Seq.BEGINNING, SAMPLE_CHANGES)
            trial = try_changes(pillow, changes, transport, feed, epoch=1)
        except PillowError:
            return "no document could be tried, since the source cannot be read"  # another finding says why
    if trial.problem:
        return trial.problem
    count = trial.written + len(trial.dead)
    if not count:
        return "the source has no document to try"
    if not trial.dead:
        return f"{count} of the first documents can be written"
    id, reason = next(iter(trial.dead.items()))
    text = f"{len(trial.dead)} of the first {count} documents would become dead letters"
    text = f"{text}, such as {id!r}: {reason}"
    if trial.written:
        return f"warning: {text}"
    remedy = "correct `columns`, or the transform; `pillowd preview KEY` shows the rows"
    raise ConfigError(f"{text}.", remedy=remedy.replace("KEY", key.pillow))


def _print_findings(config_path: Path, config: Config, findings: list[Finding]) -> None:
    made = new_table("place", "", "found")
    colours = {"ok": "green", "unreachable": "yellow", "refused": "red"}
    for finding in findings:
        colour = colours[finding.result]
        made.add_row(escape(finding.place), f"[{colour}]{finding.result}[/]", escape(finding.text))
    if findings:
        print_table(made)
    count = len(config.pillows)
    text = f"the configuration is valid, {count} pillow{'' if count == 1 else 's'}"
    if failed := [finding for finding in findings if finding.result != "ok"]:
        text += f"; {len(failed)} of {len(findings)} sources and targets cannot work"
    echo(f"{config_path}: {text}")
