"""`pillowd verify`: compare targets with the source, and repair differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
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
from daemon.assembly.feeds import build_ids_feed
from daemon.assembly.pipelines import build_pillow, build_transports
from daemon.cli import control_client
from daemon.cli.exit_codes import ExitCode, translate_unreachable
from daemon.cli.formatting import new_table, print_table
from daemon.cli.options import config_option, json_option
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config.plugins import add_plugins
from daemon.control.paging import page
from daemon.printable import printable_lines
from daemon.tail_lookup import tail_keys
from pillows.clock import SystemClock
from pillows.observer import Observer
from pillows.redaction import Redactor
from pillows.runtime.status import State
from pillows.verify.comparison_table import ComparisonTable
from pillows.verify.verifier import KINDS, Report, Verifier, VerifyContext

#: Documents that one call repairs; it must answer before the client gives up.
_REPAIR_DOCUMENTS = 1000

#: In these states a pillow makes no progress, so there is nothing to wait for.
_IDLE = {State.PAUSED, State.FAILED, State.STOPPED}


@click.command()
@click.argument("key")
@config_option
@click.option(
    "--repair", is_flag=True, help="Send differing documents through the pipeline again, and compare again."
)
@click.option(
    "--wait",
    "wait_seconds",
    default=60.0,
    metavar="SECONDS",
    help="Longest wait for the running pillow to catch up, and for an unreachable source. [60]",
)
@json_option
def verify(key: str, config_path: Path, repair: bool, wait_seconds: float, as_json: bool) -> int:
    """Compare the targets of the pillow KEY with its source.

    Ids, versions and revisions are compared, not columns. A running pillow is not disturbed: only changes
    that it has processed count. The exit code is 3 if there are differences, 75 if the source or a target
    is unreachable.

    With `deletes: ignore` or `on_filtered: ignore`, rows that the source no longer has are kept and counted
    separately. A replica's own design documents are ignored.
    """
    config = load(config_path)
    tail = tail_lookup.resolve_tail(key, tail_keys(config))
    add_plugins(config.daemon.plugins_path)
    with ExitStack() as stack:
        stack.enter_context(translate_unreachable(Redactor.of_settings(config)))
        call = stack.enter_context(control_client.open_control(config))
        subject = _subject(stack, config, tail, call=call, wait_seconds=wait_seconds, hidden=as_json)
        verifier = Verifier(subject, stack.enter_context(ComparisonTable()))
        before = report = verifier.verify()
        if repair and not before.equal:
            _repair(verifier, partial(call, "verify.repair", key=str(tail)))
            report = verifier.recheck()
    if as_json:
        print_json(_to_json(report) | ({"before_repair": _to_json(before)} if repair else {}))
    else:
        _print_report(tail, before, "found")
        if report is not before:
            _print_report(tail, report, "after the repair")
    return ExitCode.OK if report.equal else ExitCode.DIFFERENCES


def _subject(
    stack: ExitStack,
    config: Config,
    tail: TailKey,
    *,
    call: control_client.Call,
    wait_seconds: float,
    hidden: bool,
) -> VerifyContext:
    bar = stack.enter_context(_new_progress(hidden=hidden))
    clock = SystemClock()
    pillow = build_pillow(tail.pillow, config.tails[tail.pillow], config.daemon.plugins_path)
    feed = stack.enter_context(
        closing(build_ids_feed(config, tail, pillow, clock=clock, observer=Retries(bar)))
    )
    transports = [stack.enter_context(closing(each)) for each in build_transports(config, tail)]
    return VerifyContext(
        pillow=pillow,
        feed=feed,
        transports=transports,
        checkpoint=lambda: _to_checkpoint(call("checkpoint.get", key=str(tail))),
        dead=lambda: [id for each in transports for id in _iter_dead_ids(call, tail, each.name)],
        clock=clock,
        wait_seconds=wait_seconds if _is_progressing(call("status"), tail) else 0.0,
        source_timeout_seconds=wait_seconds,
        progress=_count_on(bar),
    )


class Retries(Observer):
    """Shows retries on the terminal.

    Args:
        bar: the progress bar above which they appear.
    """

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:  # noqa: ARG002 - an observer's
        """Print the retry to standard error."""
        text = f"{where}: {Redactor().redact(error)}; retrying in {delay_seconds:.0f} s"
        self._bar.console.print(escape(printable_lines(text)), soft_wrap=True)


def _iter_dead_ids(call: control_client.Call, tail: TailKey, transport: str) -> Iterator[str]:
    """Yield the ids of documents with a dead letter, page by page."""
    after = ""
    while ids := call("dead-letter.ids", key=str(tail), transport=transport, after=after):
        yield from ids
        after = ids[-1]


def _to_checkpoint(facts: dict[str, Any]) -> Checkpoint:
    return Checkpoint.from_json({name: value for name, value in facts.items() if name != "key"})


def _is_progressing(status: dict[str, Any], tail: TailKey) -> bool:
    """Return whether the pillow makes progress."""
    states = {(each["pillow"], each["source"]): each["state"] for each in status["pillows"]}
    return bool(status["running"]) and states.get((tail.pillow, tail.source)) not in _IDLE


def _repair(verifier: Verifier, send: Callable[..., Any]) -> None:
    after: str | None = None
    while ids := page(verifier.differing(after, _REPAIR_DOCUMENTS)):
        send(ids=ids)
        after = ids[-1]


def _to_json(report: Report) -> dict[str, Any]:
    return asdict(report) | {"equal": report.equal}


def _new_progress(*, hidden: bool) -> Progress:
    """Return a progress bar for what is read, and how fast."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[count]}"))
    return Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True, disable=hidden
    )


def _count_on(bar: Progress) -> Callable[[str, int], None]:
    tasks: dict[str, Any] = {}
    began: dict[str, float] = {}

    def update(what: str, count: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(escape(what), total=None, count="")
            began[what] = time.monotonic()
        rate = count / max(0.001, time.monotonic() - began[what])
        bar.update(tasks[what], count=f"{count:,} documents, {rate:,.0f}/s")

    return update


def _print_report(tail: TailKey, report: Report, title: str) -> None:
    made = new_table("target", ">documents", *(f">{kind}" for kind in KINDS), "for example")
    for found in report.targets:
        examples = [f"{kind} {id}" for kind in KINDS for id in found.examples[kind][:3]]
        made.add_row(
            escape(found.target),
            f"{found.stored:,}",
            *(f"{found.counts[kind]:,}" for kind in KINDS),
            escape(", ".join(examples)),
        )
    echo(f"{tail}: {report.documents:,} documents in the source; {title}:")
    print_table(made)
    for found in report.targets:
        if found.kept:
            echo(f"{found.kept:,} in {found.target} are kept although the source no longer has them")
    if report.in_flight:
        echo(f"{report.in_flight:,} more are in flight: the pillow has not processed them yet")
    if report.dead:
        echo(f"{report.dead:,} are dead letters, and not compared")
    echo("equal" if report.equal else "there are differences")
