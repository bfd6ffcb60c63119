"""`pillowd dead-letter`: show, retry and discard documents that could not be written."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec import Struct
from rich.markup import escape

from daemon.cli import control_client
from daemon.cli.formatting import format_key, format_time, new_grid, new_table, print_table
from daemon.cli.options import Command, common_options
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.control.paging import split

#: One dead letter in the result of a control call.
DeadLetterFacts = Mapping[str, Any]

#: The steps of a pillow that a document can fail in.
STAGES = ("filter", "trigger", "transform", "transport")
#: Lines of `list` unless --limit says otherwise.
_LINES = 50
#: Parts of a reason that differ from document to document: quoted values and numbers.
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\d+")
_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])


class Choice(Struct, frozen=True, kw_only=True):
    """The choice of dead letters to list.

    Attributes:
        stage: the step that failed.
        error: part of the reason, in upper or lower case.
        since: earliest last failure, in UTC.
        until: the last failure is before this, in UTC.
    """

    stage: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def holds(self, dead_letter: DeadLetterFacts) -> bool:
        """Return whether a dead letter is chosen."""
        at = datetime.fromtimestamp(dead_letter["at"], UTC).replace(tzinfo=None)
        return (
            self.stage in (None, dead_letter["stage"])
            and (self.error is None or self.error.lower() in dead_letter["error"].lower())
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
        )


@click.group("dead-letter")
def dead_letter() -> None:
    """Show, retry and discard dead letters: documents that could not be written.

    KEY is a pillow's name, or `pillow@connection/database`.
    """


@dead_letter.command("list")
@click.argument("key", required=False)
@click.option("--stage", type=click.Choice(STAGES), help="Choose those that failed in this step.")
@click.option("--error", metavar="TEXT", help="Choose those whose reason contains TEXT.")
@click.option(
    "--since",
    metavar="DATE",
    type=_DATE,
    help="Choose those that last failed on DATE or later.",
)
@click.option("--until", metavar="DATE", type=_DATE, help="Choose those that last failed before DATE.")
@click.option("--each", "one_by_one", is_flag=True, help="Print one line per dead letter.")
@click.option("--limit", type=click.IntRange(min=1), help="Print at most N lines. [50; with --json all]")
@common_options
def list_dead_letters(
    *,
    key: str | None,
    one_by_one: bool,
    limit: int | None,
    config_path: Path,
    as_json: bool,
    **choice: Any,
) -> None:
    """List the dead letters of the pillow KEY, or of all pillows, by reason.

    Dates are in UTC, such as 2026-11-29 or "2026-11-29 07:30:00".
    """
    chosen = Choice(**choice)
    with control_client.open_control(load(config_path, plugins=False)) as call:
        keys = [key] if key else [format_key(each) for each in control_client.list_pillows(call)]
        found = [each for k in keys for each in _iter_dead_letters(call, k) if chosen.holds(each)]
    if as_json:
        print_json(found[:limit])
        return
    lines = limit or _LINES
    if one_by_one:
        _print_each(found[:lines])
        rest = len(found) - lines
    else:
        groups = group_by_reason(found)
        _print_groups(groups[:lines])
        rest = len(groups) - lines
    if rest > 0:
        echo(f"and {rest:,} more lines; --limit {rest + lines} prints all")


def _print_groups(groups: Sequence[Sequence[DeadLetterFacts]]) -> None:
    made = new_table("pillow", "transport", "stage", ">documents", "since", "for example", "reason")
    for group in groups:
        first = group[0]
        made.add_row(
            escape(first["pillow"]),
            first["transport"],
            first["stage"],
            f"{len(group):,}",
            format_time(min(each["first_at"] for each in group)),
            escape(first["id"]),
            escape(first["error"]),
        )
    print_table(made)


def group_by_reason(dead_letters: Iterable[DeadLetterFacts]) -> list[list[DeadLetterFacts]]:
    """Return the dead letters in groups of one pillow, transport, stage and reason, the largest first.

    Reasons that differ only in numbers and quoted values are the same.
    """
    groups: dict[tuple[str, ...], list[DeadLetterFacts]] = defaultdict(list)
    for each in dead_letters:
        reason = _VARYING.sub("?", each["error"])
        groups[each["pillow"], each["transport"], each["stage"], reason].append(each)
    return sorted(groups.values(), key=len, reverse=True)


def _print_each(dead_letters: Iterable[DeadLetterFacts]) -> None:
    made = new_table("pillow", "document", "transport", "stage", "since", ">failures", "next retry", "reason")
    for each in dead_letters:
        made.add_row(
            escape(each["pillow"]),
            escape(each["id"]),
            each["transport"],
            each["stage"],
            format_time(each["first_at"]),
            str(each["failures"]),
            format_next_retry(each),
            escape(each["error"]),
        )
    print_table(made)


def _iter_dead_letters(call: control_client.Call, key: str) -> Iterator[dict[str, Any]]:
    """Yield all dead letters of a pillow, page by page."""
    after: str | None = ""
    while after is not None:
        page = call("list_dead_letters", **control_client.name_pillow(key), after=after or None)
        yield from page["dead_letters"]
        after = page["next"]


@dead_letter.command("show")
@click.argument("key")
@click.argument("id")
@common_options
def show_dead_letters(key: str, id: str, config_path: Path, as_json: bool) -> None:
    """Show every detail of the dead letters of the document ID."""
    named = control_client.name_pillow(key)
    dead_letters = control_client.call_control(config_path, "list_dead_letters", **named, id=[id])[
        "dead_letters"
    ]
    if as_json:
        print_json(dead_letters)
        return
    for each in dead_letters:
        made = new_grid()
        for name in ("id", "rev", "version", "transport", "stage", "error", "seq", "config"):
            made.add_row(name, escape(str(each[name])))
        made.add_row("failed first", format_time(each["first_at"]))
        made.add_row("failed last", format_time(each["at"]))
        made.add_row("failures", f"{each['failures']}, {each['tries']} of this version")
        made.add_row("next retry", format_next_retry(each))
        print_table(made)


def _choice_options(command: Command) -> Command:
    """Add `KEY [ID]... [--all]`, which choose dead letters, to a command."""
    every = click.option("--all", "every", is_flag=True, help="Choose all dead letters of the pillow.")
    ids = click.argument("ids", metavar="[ID]...", nargs=-1)
    return click.argument("key")(ids(every(command)))


@dead_letter.command()
@_choice_options
@common_options
def retry(key: str, ids: tuple[str, ...], every: bool, config_path: Path, as_json: bool) -> None:
    """Retry the dead letters of KEY with each document's current revision."""
    _edit("retry", "will be retried", key, ids, config_path, every=every, as_json=as_json)


@dead_letter.command()
@_choice_options
@common_options
def discard(key: str, ids: tuple[str, ...], every: bool, config_path: Path, as_json: bool) -> None:
    """Discard dead letters of KEY. Their documents are missing in the target until they change."""
    _edit("discard", "discarded", key, ids, config_path, every=every, as_json=as_json)


def format_next_retry(dead_letter: DeadLetterFacts) -> str:
    """Return the time of the next retry, for people."""
    if dead_letter["aborted"]:
        return "none, given up"
    return format_time(dead_letter["next_retry_at"]) if dead_letter["next_retry_at"] else "now"


def _edit(
    what: str, result: str, key: str, ids: tuple[str, ...], config_path: Path, *, every: bool, as_json: bool
) -> None:
    if bool(ids) == every:
        raise click.UsageError("Name documents, or use --all.")
    bodies: list[dict[str, Any]] = [{"all": True}] if every else [{"ids": part} for part in split(ids)]
    with control_client.open_control(load(config_path, plugins=False), writes=True) as call:
        named = control_client.name_pillow(key)
        parts = [call(f"{what}_dead_letters", **named, body=body) for body in bodies]
    counted = next(name for name in parts[0] if name != "key")
    done = {"key": parts[0]["key"], counted: sum(part[counted] for part in parts)}
    if as_json:
        print_json(done)
        return
    echo(f"{done['key']}: {done[counted]} dead letter{'' if done[counted] == 1 else 's'} {result}")
