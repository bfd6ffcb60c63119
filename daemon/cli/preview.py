"""`pillowd preview`: what a pillow would do with real documents, without doing any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from gevent.event import Event

from checkpoints import Seq
from daemon import tail_lookup
from daemon.assembly import build_feed, build_pillow, build_transports, tail_key
from daemon.cli import control_client
from daemon.cli.exit_codes import CommandError, UnreachableError
from daemon.cli.options import config_option, json_option, print_json
from daemon.config.load import load
from daemon.config.models import Config
from pillows.clock import SystemClock
from pillows.errors import RetryableError
from pillows.feed.base import Feed
from pillows.feed.changes_parser import MalformedFeedError
from pillows.feed.recorded import RecordedFeed
from pillows.models import Change
from pillows.observer import Observer
from pillows.preview import Preview, next_changes, previews
from pillows.redaction import Redactor


@click.command()
@click.argument("key")
@click.option("--id", "ids", multiple=True, metavar="ID", help="This document; may be given several times.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=1, show_default=True, help="The next N changes."
)
@click.option(
    "--changes",
    "recorded",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take recorded changes instead of the source's: what `_changes?style=all_docs&include_docs=true`"
    " answered.",
)
@config_option
@json_option
def preview(
    key: str,
    ids: tuple[str, ...],
    limit: int,
    *,
    recorded: Path | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Shows what the pillow KEY would do with real documents: filter, rows, and the requests sent.

    Without --id it takes the next changes after the pillow's checkpoint, or the first of the file that
    --changes names. Nothing is written anywhere, and no position moves.
    """
    config = load(config_path)
    redactor = Redactor.of_settings(config)
    shown = []
    with _unreadable(recorded) if recorded else _unreachable(redactor):
        for each in look(config, key, ids, limit, recorded=recorded):
            shown.append(asdict(each))
            if not as_json:
                _show(each, redactor)
    if as_json:
        print_json(json.loads(redactor.redact(json.dumps(shown))))
    elif not shown:
        click.echo("there are no further changes")


def look(
    config: Config, key: str, ids: tuple[str, ...], limit: int, *, recorded: Path | None = None
) -> Iterator[Preview]:
    """What the pillow would do with these documents, or with its next changes.

    Args:
        config: a valid configuration.
        key: the pillow.
        ids: of the documents; none: the next changes.
        limit: how many changes at most.
        recorded: a file with an answer of `_changes`, to be taken from its beginning.
    """
    tails = {tail_key(name, pillow): pillow for name, pillow in config.tails.items()}
    tail = tail_lookup.find(key, tails)
    since, epoch = _position(config, str(tail))
    pillow = build_pillow(tail.pillow, tails[tail], config.daemon.plugins_path)
    feed: Feed
    if recorded is None:
        feed = build_feed(config, tail, pillow.filter, clock=SystemClock(), observer=Observer())
    else:
        feed = RecordedFeed(recorded, clock=_AtTheEnd(), skip_design=tails[tail].source.skip_design)
        since = feed.start()
    with ExitStack() as stack:
        stack.enter_context(closing(feed))
        transports = build_transports(config, tail)
        for transport in transports:
            stack.callback(transport.close)
        feed.identify()  # one try: whoever is waiting wants to hear that the source is away
        found = _named(list(feed.current(ids)), ids) if ids else next_changes(feed, since, limit)
        if recorded is not None:
            _check_documents(recorded, found)
        yield from previews(pillow, found, transports, feed, epoch=epoch)


def _named(found: list[Change], ids: tuple[str, ...]) -> list[Change]:
    missing = [id for id, change in zip(ids, found, strict=True) if not change.leaf_version]
    if missing:
        raise CommandError(f"the source has no document {', '.join(missing)}")
    return found


def _check_documents(recorded: Path, found: Sequence[Change]) -> None:
    """Refuses changes without their documents: a filter would see nothing, and leave them out."""
    bare = [change.id for change in found if change.raw is None and not change.deleted]
    if bare:
        raise CommandError(f"{recorded} has no document for {bare[0]!r}; record with include_docs=true")


def _position(config: Config, key: str) -> tuple[Seq, int]:
    """Where the pillow stands, and the epoch that it writes under."""
    with control_client.opened(config) as call:
        try:
            saved: dict[str, Any] = call("checkpoint.get", key=key)
        except (CommandError, LookupError):
            return Seq.BEGINNING, 1
    return Seq.of(saved["seq"]), max(1, int(saved["epoch"]))


class _AtTheEnd(SystemClock):
    """Waits for nothing: behind the end of a file no change comes."""

    def wait(self, event: Event, seconds: float) -> bool:  # noqa: ARG002  # the contract's
        """Tells at once whether the event is set."""
        return bool(event.is_set())


@contextmanager
def _unreadable(recorded: Path) -> Iterator[None]:
    try:
        yield
    except MalformedFeedError as error:
        raise CommandError(f"{recorded} is no recorded answer of _changes: {error}") from error


@contextmanager
def _unreachable(redactor: Redactor) -> Iterator[None]:
    try:
        yield
    except RetryableError as error:
        raise UnreachableError(redactor.redact(str(error))) from error


def _show(each: Preview, redactor: Redactor) -> None:
    lines = [f"{each.id} {each.rev}, version {each.version}", f"  filter: {each.filter}"]
    if each.document is not None:
        lines.append(f"  document: {json.dumps(each.document, ensure_ascii=False)}")
    for output, rows in each.rows.items():
        lines += [f"  row of {output}: {json.dumps(row, ensure_ascii=False)}" for row in rows]
    if not any(each.rows.values()) and not each.errors:
        lines.append("  no rows")
    lines += [f"  dead letter in {stage}: {why}" for stage, why in each.errors.items()]
    for transport, request in each.requests.items():
        lines += [f"  {transport} would be sent:", *(f"    {line}" for line in request.splitlines())]
    click.echo("\n".join(redactor.redact(line) for line in lines))
