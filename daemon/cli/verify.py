"""`pillowd verify`: do targets and source agree?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from checkpoints import Checkpoint, TailKey
from daemon import tail_lookup
from daemon.assembly import build_ids_feed, build_pillow, build_transports, tail_keys
from daemon.cli import control_client
from daemon.cli.exit_codes import Exit, UnreachableError
from daemon.cli.formatting import show, table
from daemon.cli.options import config_option, json_option, print_json
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config.plugins import add_plugins
from daemon.control.paging import page
from pillows.clock import SystemClock
from pillows.errors import RetryableError
from pillows.observer import Observer
from pillows.redaction import Redactor
from pillows.runtime.status import State
from pillows.verify.comparison_table import Scratch
from pillows.verify.verifier import KINDS, Report, Subject, Verifier

#: Documents that are sent again in one call: it must answer before its caller gives up.
_REPAIRED = 1000

#: In these states a pillow does not pass anything, so there is nothing to wait for.
_RESTING = {State.PAUSED, State.FAILED, State.STOPPED}


@click.command()
@click.argument("key")
@config_option
@click.option("--repair", is_flag=True, help="Send what differs through the pipeline again, and look again.")
@click.option(
    "--wait",
    "wait_seconds",
    default=60.0,
    metavar="SECONDS",
    help="How long to wait until the running pillow has passed what differs; and for a source that is away."
    "  [60]",
)
@json_option
def verify(key: str, config_path: Path, repair: bool, wait_seconds: float, as_json: bool) -> int:
    """Compares what the targets of the pillow KEY hold with what its source says they should.

    Compared are ids, versions and revisions, not columns. Safe beside the running pillow: only what it
    has passed counts. Exit code 3: there are differences; 75: the source or a target was away.

    Where rows may outlive their documents (`deletes: ignore`, `on_filtered: ignore`), those that the source
    no longer has are kept, and counted apart. A replica's own design documents are left alone.
    """
    config = load(config_path)
    tail = tail_lookup.find(key, tail_keys(config))
    add_plugins(config.daemon.plugins_path)
    with ExitStack() as stack:
        stack.enter_context(_reachable())
        call = stack.enter_context(control_client.opened(config))
        subject = _subject(stack, config, tail, call=call, wait_seconds=wait_seconds, hidden=as_json)
        verifier = Verifier(subject, stack.enter_context(Scratch()))
        before = report = verifier.verify()
        if repair and not before.equal:
            _repair(verifier, partial(call, "verify.repair", key=str(tail)))
            report = verifier.look_again()
    if as_json:
        print_json(_facts(report) | ({"before_repair": _facts(before)} if repair else {}))
    else:
        _show(tail, before, "found")
        if report is not before:
            _show(tail, report, "after the repair")
    return Exit.OK if report.equal else Exit.DIFFERENCES


def _subject(
    stack: ExitStack,
    config: Config,
    tail: TailKey,
    *,
    call: control_client.Call,
    wait_seconds: float,
    hidden: bool,
) -> Subject:
    bar = stack.enter_context(_progress(hidden=hidden))
    clock = SystemClock()
    pillow = build_pillow(tail.pillow, config.tails[tail.pillow], config.daemon.plugins_path)
    feed = stack.enter_context(
        closing(build_ids_feed(config, tail, pillow, clock=clock, observer=Retries(bar)))
    )
    transports = [stack.enter_context(closing(each)) for each in build_transports(config, tail)]
    return Subject(
        pillow=pillow,
        feed=feed,
        transports=transports,
        checkpoint=lambda: _checkpoint(call("checkpoint.get", key=str(tail))),
        dead=lambda: [id for each in transports for id in _dead(call, tail, each.name)],
        clock=clock,
        wait_seconds=wait_seconds if _passes(call("status"), tail) else 0.0,
        patience_seconds=wait_seconds,
        progress=_counted(bar),
    )


class Retries(Observer):
    """Tells whoever waits what is tried again.

    Args:
        bar: what is shown meanwhile.
    """

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def retry(self, pillow: str, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:  # noqa: ARG002 - an observer's
        """Says it on stderr."""
        told = f"{where}: {Redactor().redact(error)}; trying again in {delay_seconds:.0f} s"
        self._bar.console.print(escape(told), soft_wrap=True)


@contextmanager
def _reachable() -> Iterator[None]:
    """What is away, and may come back, makes the command end like any that cannot connect."""
    try:
        yield
    except RetryableError as error:
        raise UnreachableError(str(error)) from error


def _dead(call: control_client.Call, tail: TailKey, transport: str) -> Iterator[str]:
    """Documents with a dead letter: all of their ids may be too much for one answer."""
    after = ""
    while ids := call("dead-letter.ids", key=str(tail), transport=transport, after=after):
        yield from ids
        after = ids[-1]


def _checkpoint(facts: dict[str, Any]) -> Checkpoint:
    return Checkpoint.from_json({name: value for name, value in facts.items() if name != "key"})


def _passes(status: dict[str, Any], tail: TailKey) -> bool:
    """Whether the pillow runs."""
    states = {(each["pillow"], each["source"]): each["state"] for each in status["pillows"]}
    return bool(status["running"]) and states.get((tail.pillow, tail.source)) not in _RESTING


def _repair(verifier: Verifier, send: Callable[..., Any]) -> None:
    after: str | None = None
    while ids := page(verifier.differing(after, _REPAIRED)):
        send(ids=ids)
        after = ids[-1]


def _facts(report: Report) -> dict[str, Any]:
    return asdict(report) | {"equal": report.equal}


def _progress(*, hidden: bool) -> Progress:
    """Shows what is read, and how fast; nothing where nobody looks."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[count]}"))
    return Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True, disable=hidden
    )


def _counted(bar: Progress) -> Callable[[str, int], None]:
    tasks: dict[str, Any] = {}
    began: dict[str, float] = {}

    def told(what: str, count: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(escape(what), total=None, count="")
            began[what] = time.monotonic()
        rate = count / max(0.001, time.monotonic() - began[what])
        bar.update(tasks[what], count=f"{count:,} documents, {rate:,.0f}/s")

    return told


def _show(tail: TailKey, report: Report, title: str) -> None:
    made = table("target", ">documents", *(f">{kind}" for kind in KINDS), "for example")
    for found in report.targets:
        examples = [f"{kind} {id}" for kind in KINDS for id in found.examples[kind][:3]]
        made.add_row(
            escape(found.target),
            f"{found.stored:,}",
            *(f"{found.counts[kind]:,}" for kind in KINDS),
            escape(", ".join(examples)),
        )
    click.echo(f"{tail}: {report.documents:,} documents in the source; {title}:")
    show(made)
    for found in report.targets:
        if found.kept:
            click.echo(f"{found.kept:,} in {found.target} are kept, though the source no longer has them")
    if report.on_their_way:
        click.echo(f"{report.on_their_way:,} more are on their way: the pillow has not passed them yet")
    if report.dead:
        click.echo(f"{report.dead:,} are in the dead letters, and left out")
    click.echo("equal" if report.equal else "there are differences")
