"""`pillowd tap`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import click
import gevent
from gevent.event import Event
from gevent.queue import Empty, Queue

from daemon.cli.control_client import name_pillow, open_stream
from daemon.cli.formatting import format_time
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json_line
from daemon.config.load import load
from daemon.config.models import Config
from daemon.process import signals

#: How soon Ctrl-C is answered while nothing passes.
_POLL_SECONDS = 0.1


@click.command()
@click.argument("key")
@common_options
@click.option(
    "--stage",
    type=click.Choice(["change", "rows"]),
    default="change",
    show_default=True,
    help="What to show: changes from the feed, before the filter; or rows about to be written.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=100),
    default=10.0,
    show_default=True,
    help="Most samples per second; they are evenly spread.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after this many samples.")
@click.option("--show-values", is_flag=True, help="Show values. By default only their types are shown.")
def tap(
    *,
    key: str,
    config_path: Path,
    as_json: bool,
    stage: str,
    rate: float,
    count: int | None,
    show_values: bool,
) -> None:
    """Show samples of the changes or rows of the pillow KEY, until Ctrl-C.

    Ids and field names are shown; values are personal data, and only shown on request.
    """
    config = load(config_path, plugins=False)
    arguments = {"stage": stage, "rate": rate, "values": show_values, **name_pillow(key)}
    with signals.track_sigint() as interrupted, suppress(KeyboardInterrupt):
        for sample in islice(_samples(config, arguments, interrupted), count):
            print_json_line(sample) if as_json else echo(format_sample(sample))
            sys.stdout.flush()


def _samples(config: Config, arguments: dict[str, Any], interrupted: Event) -> Iterator[dict[str, Any]]:
    """Yield samples until interrupted, at once even while none comes.

    Raises:
        RequestError: the daemon refused it.
        UnreachableError, StoreUnavailable: the daemon does not run, or has ended.
    """
    arrived: Queue[dict[str, Any] | Exception] = Queue(maxsize=100)
    reader = gevent.spawn(_read, config, arguments, arrived)
    try:
        while not interrupted.is_set():
            with suppress(Empty):
                item = arrived.get(timeout=_POLL_SECONDS)
                if isinstance(item, Exception):
                    raise item
                yield item
    finally:
        reader.kill()


def _read(config: Config, arguments: dict[str, Any], arrived: Queue[dict[str, Any] | Exception]) -> None:
    try:
        while True:  # a stream ends after ten minutes
            with open_stream(config, "tap_pillow", **arguments) as messages:
                for message in messages:
                    if message.event:
                        arrived.put(message.data)
    except Exception as error:  # noqa: BLE001 - raised again by who waits for samples
        arrived.put(error)


def format_sample(sample: dict[str, Any]) -> str:
    """Return a sample as a line: time, id, revision, and the document or its rows as JSON."""
    what = sample["rows"] if "rows" in sample else sample["doc"]
    shown = "deleted" if sample.get("deleted") else json.dumps(what, ensure_ascii=False)
    return (
        f"{format_time(sample['at'])} {json.dumps(sample['id'], ensure_ascii=False)} {sample['rev']} {shown}"
    )
