"""`pillowd index`: list the indices of a pillow, and remove those that are not used any more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
from msgspec.structs import asdict

from checkpoints import TailKey
from daemon.assembly.pipelines import build_transport
from daemon.cli.exit_codes import CommandError
from daemon.cli.formatting import format_time, new_table, print_table
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.config.load import load
from daemon.config.models import Config
from daemon.tail_lookup import resolve_tail, tail_keys
from pillows import registry
from pillows.transports.common.search.index.old_indices import IndexInfo, IndexUse, OldIndices
from pillows.transports.common.search.transport import SearchTransport


@click.group()
def index() -> None:
    """List the indices of a pillow in Elasticsearch or OpenSearch, and remove old ones.

    If a mapping changes in a way that an index can't, pillowd fills a new index. The old one stays until it
    is removed here. This works whether or not a daemon runs.
    """


@index.command("list")
@click.argument("key")
@common_options
def list_indices(key: str, config_path: Path, as_json: bool) -> None:
    """List the indices that KEY has created, oldest first.

    Searched: the alias points to it. Configured: the configuration names it. Written: pillowd wrote to it
        last. Build: `rebuild` made it. Old: none of these. An index that is loading has no refreshes and no
        replicas until its first pass is complete. If that pass was given up, they return at the next start of
        the pillow.
    """
    config = load(config_path, plugins=False)
    tail = resolve_tail(key, tail_keys(config))
    infos = [each for indices in _open(config, tail) for each in indices.list()]
    if as_json:
        print_json([asdict(each) for each in infos])
        return
    made = new_table("index", "use", ">documents", ">MB", "created", "")
    for each in infos:
        size = f"{each.size_bytes / 1e6:,.1f}"
        created, note = format_time(each.created_at), "loading" if each.loading else ""
        made.add_row(each.name, each.use, f"{each.documents:,}", size, created, note)
    print_table(made)


@index.command()
@click.argument("key")
@click.argument("names", metavar="[INDEX]...", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@common_options
def remove(key: str, names: tuple[str, ...], yes: bool, config_path: Path, as_json: bool) -> None:
    """Remove old indices of KEY: those named, or all old ones. An index in use is never removed."""
    config = load(config_path, plugins=False)
    tail = resolve_tail(key, tail_keys(config))
    removed: list[str] = []
    known: dict[str, IndexInfo] = {}
    for indices in _open(config, tail):
        listed = {each.name: each for each in indices.list()}
        known |= listed
        chosen = [each for each in listed.values() if _is_chosen(each, names)]
        if used := next((each for each in chosen if each.use is not IndexUse.OLD), None):
            raise CommandError(f"the index {used.name} is in use ({used.use}), so nothing is removed")
        if chosen and not yes:
            _confirm(chosen)
        for each in chosen:
            indices.remove(each.name)
            removed.append(each.name)
    if unknown := [name for name in names if name not in known]:
        raise CommandError(f"{tail} has no index {unknown[0]}; it has {', '.join(known) or 'none'}")
    if as_json:
        print_json({"key": str(tail), "removed": removed})
    else:
        echo(f"{tail}: {len(removed)} ind{'ex' if len(removed) == 1 else 'ices'} removed")


def _open(config: Config, tail: TailKey) -> Iterator[OldIndices]:
    """Yield the indices of each output of a tail in a search cluster.

    Raises:
        CommandError: it has none.
    """
    outputs = 0
    for entry in config.tails[tail.pillow].transport:
        if not registry.has_transport(config.connections[entry.connection].type):
            continue  # a plugin's, and these are not imported for this
        transport = build_transport(config, tail, entry)
        if isinstance(transport, SearchTransport):
            with closing(transport):
                for output in transport.outputs:
                    outputs += 1
                    yield transport.find_old_indices(output)
    if not outputs:
        raise CommandError(f"{tail} does not write to Elasticsearch or OpenSearch.")


def _is_chosen(info: IndexInfo, names: tuple[str, ...]) -> bool:
    """Return whether an index is named; without names, whether it is old."""
    return info.name in names if names else info.use is IndexUse.OLD


def _confirm(chosen: list[IndexInfo]) -> None:
    """Ask on a terminal.

    Raises:
        CommandError: there is no terminal.
        click.Abort: the operator said no.
    """
    for each in chosen:
        echo(f"{each.name}: {each.documents:,} documents, {each.use}", err=True)
    if not sys.stdin.isatty():
        raise CommandError("nothing was removed. Remedy: `--yes` removes without asking")
    click.confirm("Remove them for good?", abort=True, err=True)
