"""`pillowd preview`: run a pillow on real documents, without writing anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import click
from gevent.event import Event
from msgspec.structs import asdict

from checkpoints import Seq
from daemon import tail_lookup
from daemon.assembly.feeds import build_feed
from daemon.assembly.pipelines import build_pipeline, build_transports
from daemon.assembly.prefilters import make_prefilter
from daemon.cli import control_client
from daemon.cli.exit_codes import CommandError, translate_unreachable
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.config.models import Config
from daemon.errors import NotFoundError
from pillows.clock import SystemClock
from pillows.feed.base import Feed
from pillows.feed.parsing.changes_parser import MalformedFeedError
from pillows.feed.recorded import RecordedFeed
from pillows.models import Change
from pillows.observer import Observer
from pillows.preview import Preview, next_changes, previews
from pillows.redaction import Redactor


@click.command()
@click.argument("key")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Take this document; repeatable.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=1, show_default=True, help="Take the next N changes."
)
@click.option(
    "--changes",
    "recorded",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take changes from a file that holds an answer of `_changes?style=all_docs&include_docs=true`.",
)
@common_options
def preview(
    key: str,
    ids: tuple[str, ...],
    limit: int,
    *,
    recorded: Path | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Show the filter result, rows and requests of the pillow KEY for real documents.

    Without --id, take the next changes after the pillow's checkpoint, or the first of the file that
    --changes names. PostgreSQL and SQLite get the rows in a transaction that is rolled back, to show which
    documents would become dead letters; nothing stays written, and no checkpoint moves.
    """
    config = load(config_path)
    redactor = Redactor.of_settings(config)
    shown = []
    with _translate_unreadable(recorded) if recorded else translate_unreachable(redactor):
        for each in preview_documents(config, key, ids, limit, recorded=recorded):
            shown.append(asdict(each))
            if not as_json:
                _print_preview(each, redactor)
    if as_json:
        print_json(json.loads(redactor.redact(json.dumps(shown))))
    elif not shown:
        echo("there are no further changes")


def preview_documents(
    config: Config, key: str, ids: tuple[str, ...], limit: int, *, recorded: Path | None = None
) -> Iterator[Preview]:
    """Yield what the pillow would do with these documents, or with its next changes.

    Args:
        config: a valid configuration.
        key: the pillow.
        ids: of the documents; if empty, take the next changes.
        limit: most changes to take.
        recorded: a file with an answer of `_changes` to take them from instead.
    """
    tail = tail_lookup.resolve_database(key, config)
    settings = config.tails[tail.pillow]
    since, epoch = _position(config, str(tail))
    pillow = build_pipeline(config, tail)
    feed: Feed
    if recorded is None:
        feed = build_feed(
            config, tail, make_prefilter(pillow.filter), clock=SystemClock(), observer=Observer()
        )
    else:
        feed = RecordedFeed(recorded, clock=_NoWaitClock(), skip_design=settings.source.skip_design)
        since = feed.start()
    with ExitStack() as stack:
        stack.enter_context(closing(feed))
        transports = build_transports(config, tail)
        for transport in transports:
            stack.callback(transport.close)
        feed.identify()  # without a retry: somebody waits for the answer
        found = _require_all(list(feed.current(ids)), ids) if ids else next_changes(feed, since, limit)
        if recorded is not None:
            _check_documents(recorded, found)
        yield from previews(pillow, found, transports, feed, epoch=epoch)


def _require_all(found: list[Change], ids: tuple[str, ...]) -> list[Change]:
    missing = [id for id, change in zip(ids, found, strict=True) if not change.leaf_version]
    if missing:
        raise CommandError(f"the source has no document {', '.join(missing)}")
    return found


def _check_documents(recorded: Path, found: Sequence[Change]) -> None:
    """Refuse changes without documents: a filter would drop them all."""
    bare = [change.id for change in found if change.raw is None and not change.deleted]
    if bare:
        raise CommandError(
            f"{recorded} has no document for {bare[0]!r}. Remedy: record it with include_docs=true"
        )


def _position(config: Config, key: str) -> tuple[Seq, int]:
    """Return the pillow's position, and the epoch that it writes with."""
    with control_client.open_control(config) as call:
        try:
            saved: dict[str, Any] = call("get_checkpoint", **control_client.name_pillow(key))
        except NotFoundError:
            return Seq.BEGINNING, 1
    return Seq.of(saved["seq"]), max(1, int(saved["epoch"]))


class _NoWaitClock(SystemClock):
    """A clock that never waits: after the end of a file no change follows."""

    def wait(self, event: Event, seconds: float) -> bool:  # noqa: ARG002  # as in Clock
        """Return at once whether the event is set."""
        return bool(event.is_set())


@contextmanager
def _translate_unreadable(recorded: Path) -> Iterator[None]:
    try:
        yield
    except MalformedFeedError as error:
        raise CommandError(f"{recorded} is not a recorded answer of _changes: {error}") from error


def _print_preview(each: Preview, redactor: Redactor) -> None:
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
    tried = {name: what for name, what in each.trials.items() if name not in each.errors}
    lines += [f"  {transport}: {what}" for transport, what in tried.items()]
    echo("\n".join(redactor.redact(line) for line in lines))
