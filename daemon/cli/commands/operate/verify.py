"""`pillowd verify`: compare targets with the source, and repair differences."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict, replace
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from checkpoints import Checkpoint, TailKey
from daemon import tail_lookup
from daemon.assembly.feeds import build_ids_feed
from daemon.assembly.pipelines import build_pipeline, build_transports
from daemon.cli import control_client
from daemon.cli.commands.operate.verify_databases import join_reports, list_databases
from daemon.cli.exit_codes import ExitCode, UnreachableError, translate_unreachable
from daemon.cli.formatting import new_table, print_table
from daemon.cli.options import config_option, json_option
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config.plugin_modules import add_folders
from daemon.control.paging import REQUEST_BYTES, page
from daemon.errors import RequestError
from daemon.http.problems import to_error
from daemon.printable import printable_lines
from daemon.rebuilds.definitions import with_builds
from pillows.clock import SystemClock
from pillows.observer import Observer
from pillows.redaction import Redactor
from pillows.runtime.status import State
from pillows.verify.comparison_table import ComparisonTable
from pillows.verify.contents import ContentSelection
from pillows.verify.verifier import ALTERED, KINDS, Report, Verifier, VerifyContext

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
    "--content",
    is_flag=True,
    help="Run the documents through the pipeline as well, and compare their rows with those in the targets.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --content: compare the rows of N documents, drawn at random. [all documents]",
)
@click.option(
    "--seed",
    type=int,
    metavar="NUMBER",
    help="With --sample: draw the same documents as an earlier run, which printed this number.",
)
@click.option(
    "--wait",
    "wait_seconds",
    default=60.0,
    metavar="SECONDS",
    help="Longest wait for the running pillow to catch up, and for an unreachable source. [60]",
)
@click.option(
    "--after",
    default="",
    metavar="DATABASE",
    help="For a pillow that reads several databases: start after this one, to continue an earlier run.",
)
@json_option
def verify(  # noqa: PLR0913 - one for each option
    *,
    key: str,
    config_path: Path,
    repair: bool,
    content: bool,
    sample: int | None,
    seed: int | None,
    wait_seconds: float,
    after: str,
    as_json: bool,
) -> int:
    """Compare the targets of the pillow KEY with its source.

    By default ids, versions and revisions are compared, to find documents that a target has missed, lost or
    kept too long. With --content the documents also run through the pipeline, and their rows are compared,
    child rows included, to find rows that somebody has edited in the target. --repair writes differing
    documents again, never over a newer version.

    A running pillow is not disturbed: only changes that it has processed count. The exit code is 3 if there
    are differences, 75 if the source or a target is unreachable.

    With `deletes: ignore` or `on_filtered: ignore`, rows that the source no longer has are kept and counted
    separately. A replica's own design documents are ignored.

    Several databases are compared one after the other. Each is named when it is done.
    """
    contents = _select_contents(content, sample, seed)
    config = with_builds(load(config_path))
    tail = tail_lookup.resolve_configured(key, config)
    add_folders(config.daemon.plugins_path)
    befores: list[Report] = []

    def compare(one: TailKey) -> Report:
        with ExitStack() as parts:
            subject = _subject(parts, config, one, call=call, wait_seconds=wait_seconds, hidden=as_json)
            subject = replace(subject, contents=contents)
            verifier = Verifier(subject, parts.enter_context(ComparisonTable()))
            befores.append(verifier.verify())
            if not repair or befores[-1].equal:
                return befores[-1]
            _repair(verifier, partial(_send, call, one))
            return verifier.recheck()

    with ExitStack() as stack:
        stack.enter_context(translate_unreachable(Redactor.of_settings(config)))
        call = stack.enter_context(control_client.open_control(config))
        if tail_lookup.is_pattern(tail):
            shown = (lambda _one, _report: None) if as_json else _print_verdict
            report = join_reports(list_databases(call, tail, after), compare, shown)
            before = report  # each database has its own
        else:
            report = compare(tail)
            (before,) = befores
    if as_json:
        seeds = {"seed": contents.seed} if contents and contents.sample else {}
        print_json(_to_json(report) | seeds | ({"before_repair": _to_json(before)} if repair else {}))
    else:
        if contents and contents.sample:
            echo(f"{before.compared:,} documents drawn at random with --seed {contents.seed}")
        _print_report(tail, before, "found")
        if report is not before:
            _print_report(tail, report, "after the repair")
    return ExitCode.OK if report.equal else ExitCode.DIFFERENCES


def _print_verdict(tail: TailKey, report: Report) -> None:
    echo(f"{tail}: {report.documents:,} documents, {'equal' if report.equal else 'there are differences'}")


def _select_contents(content: bool, sample: int | None, seed: int | None) -> ContentSelection | None:
    if sample is not None and not content:
        raise click.UsageError("--sample needs --content.")
    if seed is not None and sample is None:
        raise click.UsageError("--seed needs --sample.")
    if not content:
        return None
    return ContentSelection(sample=sample, seed=secrets.randbelow(2**32) if seed is None else seed)


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
    pillow = build_pipeline(config, tail)
    feed = stack.enter_context(
        closing(build_ids_feed(config, tail, pillow, clock=clock, observer=Retries(bar)))
    )
    transports = [stack.enter_context(closing(each)) for each in build_transports(config, tail)]
    return VerifyContext(
        pillow=pillow,
        feed=feed,
        transports=transports,
        checkpoint=lambda: _to_checkpoint(call("get_checkpoint", **_named(tail))),
        dead=lambda: [id for each in transports for id in _iter_dead_ids(call, tail, each.name)],
        clock=clock,
        wait_seconds=wait_seconds if _is_progressing(control_client.get_status(call), tail) else 0.0,
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
    after: str | None = None
    while True:
        page = call("list_dead_letter_ids", **_named(tail), transport=transport, after=after)
        yield from page["ids"]
        if (after := page["next"]) is None:
            return


def _named(tail: TailKey) -> dict[str, str]:
    return {"key": tail.pillow, "source": tail.source}


def _send(call: control_client.Call, tail: TailKey, ids: list[str]) -> None:
    """Have documents repaired, and wait until they are.

    Raises:
        UnreachableError: the source or a target can't be reached.
        RequestError: the repair failed.
    """
    operation = call("repair_documents", **_named(tail), body={"ids": ids})
    while operation["state"] == "running":
        operation = call("get_operation", id=operation["id"], wait="30s")
    if operation["state"] == "done":
        return
    error = to_error(operation["problem"] or {"detail": "the daemon stopped during the repair"})
    if isinstance(error, RequestError) and error.answer_status == 503:
        raise UnreachableError(str(error))
    raise error


def _to_checkpoint(facts: dict[str, Any]) -> Checkpoint:
    return Checkpoint.from_json({name: value for name, value in facts.items() if name != "key"})


def _is_progressing(status: dict[str, Any], tail: TailKey) -> bool:
    """Return whether the pillow makes progress."""
    states = {(each["pillow"], each["source"]): each["state"] for each in status["pillows"]}
    keys = [TailKey(*names) for names in states]
    pattern = next((key for key in keys if tail_lookup.find_members(key, [tail])), tail)
    return bool(status["running"]) and states.get((pattern.pillow, pattern.source)) not in _IDLE


def _repair(verifier: Verifier, send: Callable[[list[str]], None]) -> None:
    after: str | None = None
    while ids := page(verifier.differing(after, _REPAIR_DOCUMENTS), REQUEST_BYTES):
        send(ids)
        after = ids[-1]


def _to_json(report: Report) -> dict[str, Any]:
    targets = [asdict(each) for each in report.targets]
    return asdict(report) | {"targets": targets, "equal": report.equal}


def _new_progress(*, hidden: bool) -> Progress:
    """Return a progress bar with the rate and the time to go."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[count]}"))
    times = (TimeElapsedColumn(), TextColumn("to go"), TimeRemainingColumn())
    return Progress(*columns, *times, console=Console(stderr=True), transient=True, disable=hidden)


def _count_on(bar: Progress) -> Callable[[str, int, int | None], None]:
    tasks: dict[str, Any] = {}
    began: dict[str, float] = {}

    def update(what: str, count: int, total: int | None) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(escape(what), total=None, count="")
            began[what] = time.monotonic()
        rate = count / max(0.001, time.monotonic() - began[what])
        of = "" if total is None else f" of {max(count, total):,}"
        text = f"{count:,}{of} documents, {rate:,.0f}/s"
        bar.update(
            tasks[what], count=text, completed=count, total=None if total is None else max(count, total)
        )

    return update


def _print_report(tail: TailKey, report: Report, title: str) -> None:
    kinds = KINDS if report.compared is None else (*KINDS, ALTERED)
    made = new_table("target", ">documents", *(f">{kind}" for kind in kinds), "for example")
    for found in report.targets:
        examples = [f"{kind} {id}" for kind in kinds for id in found.examples[kind][:3]]
        made.add_row(
            escape(found.target),
            f"{found.stored:,}",
            *("?" if kind == ALTERED and found.incomparable else f"{found.counts[kind]:,}" for kind in kinds),
            escape(", ".join(examples)),
        )
    echo(f"{tail}: {report.documents:,} documents in the source; {title}:")
    print_table(made)
    for found in report.targets:
        if found.kept:
            echo(f"{found.kept:,} in {found.target} are kept although the source no longer has them")
        if found.incomparable:
            echo(f"the contents of {found.target} are not compared: {found.incomparable}")
    for name in report.append_only:
        echo(f"{name} is not compared: it only ever receives more, and is never read back")
    if report.compared is not None:
        echo(f"the contents of {report.compared:,} documents are compared")
    if report.in_flight:
        echo(f"{report.in_flight:,} more are in flight: the pillow has not processed them yet")
    if report.dead:
        echo(f"{report.dead:,} are dead letters, and not compared")
    echo("equal" if report.equal else "there are differences")
