"""Check a pillow on several databases: its targets must keep the rows of one apart from those of another."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.config.models import PillowConfig, TransportConfig
from daemon.config.problems import ConfigProblem, KeyPath
from daemon.config.several_databases import has_outputs_apart, has_place_apart
from daemon.config.validation.connections import Connections
from daemon.config.validation.pillows import PillowEntry
from pillows.databases.names import PLACEHOLDER


def check_databases(
    entry: PillowEntry, pillow: PillowConfig, connections: Connections
) -> Iterator[ConfigProblem]:
    """Yield the problems of a pillow's targets that come from its source.

    Args:
        entry: the pillow as it was written.
        pillow: its settings.
        connections: the connections that it names.
    """
    if not {"source", "transport"}.isdisjoint(entry.broken):
        return
    is_apart = has_outputs_apart(pillow)
    if is_apart and not pillow.source.databases:
        message = f"has `{PLACEHOLDER}` in an output, which is for a source with `databases`"
        yield entry.problem(("transport",), message, "write a name, or name several databases")
        return
    if not pillow.source.databases:
        return
    if pillow.batch.max_in_flight > 1:
        message = "is for one database: those of `databases` are written together"
        yield entry.problem(("batch", "max_in_flight"), message, "remove it; see `source.max_active`")
    if pillow.next is not None:
        message = "is for a pillow on one database"
        yield entry.problem(("next",), message, "change the pillow itself, then reset its checkpoint")
    if pillow.isolate:
        message = "needs a process of its own, which the turns of `databases` do not start"
        yield entry.problem(("isolate",), message, "remove it, or run this pillow in a daemon of its own")
    if pillow.load.workers:
        message = "is for one database: of `databases`, `source.max_active` are read at a time"
        yield entry.problem(("load", "workers"), message, "remove it, or name one `database`")
    for index, transport in enumerate(pillow.transport):
        at: KeyPath = ("transport", index)
        if is_apart and not _is_apart(transport):
            message = f"shares an output, while others have one for each database (`{PLACEHOLDER}`)"
            yield entry.problem(at, message, f"write `{PLACEHOLDER}` in every output, or in none")
        elif not is_apart:
            yield from _check_shared(entry, at, transport, connections)


def _is_apart(transport: TransportConfig) -> bool:
    """Return whether each output has a place of its own for each database, or has no place at all."""
    outputs = transport.outputs.values()
    return all(not each.ADDRESS_KEYS or has_place_apart(each) for each in outputs)


def _check_shared(
    entry: PillowEntry, at: KeyPath, transport: TransportConfig, connections: Connections
) -> Iterator[ConfigProblem]:
    known = connections.known[transport.connection]
    if not known.transport.shareable:
        message = f"`{transport.connection}` ({known.its_type}) takes the documents of one database only"
        yield entry.problem(at, message, "name another connection, or one `database`")
        return
    for output in transport.outputs.values():
        if getattr(output, "shared", False):
            message = "has `shared`: an output of several databases always holds the source in its key"
            yield entry.problem(at, message, "remove `shared`")
        if "_source" in {name.lower() for name in getattr(output, "columns", {})}:
            message = "has a column `_source`, which pillowd fills for several databases"
            yield entry.problem(at, message, "give yours another name")
