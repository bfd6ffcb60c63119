"""Check that the pillows of a configuration can run in partitions of Kafka."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.config.models import Config, PillowConfig
from daemon.config.problems import ConfigProblem, KeyPath
from pillows import registry
from pillows.feed.options import SourceOptions

#: The name of the group whose members read the databases; each pillow's group has the pillow's name.
READERS = "readers"
#: Settings that may differ between the pillows on a database. All others are those of its reader, which reads
#: it once for all of them.
_OWN_SETTINGS = {"documents", "skip_design", "on_recreated", "max_missed_purges", "on_filtered", "deletes"}
#: A topic's name has at most 249 characters, of which a pillow's name and ours take up to 150.
_MAX_DATABASE = 80


def check_partitioned(config: Config) -> Iterator[ConfigProblem]:
    """Yield the problems that keep pillows from running in partitions."""
    readers: dict[str, tuple[str, SourceOptions]] = {}
    for name, pillow in config.pillows.items():
        at: KeyPath = ("pillows", name)
        if name == READERS:
            yield config.problem(at, f"`{READERS}` is the name of a group of our own", "choose another name")
        for path, message, remedy in _find_unfit(pillow):
            yield config.problem((*at, *path), f"{message} with `coordination: {{ type: kafka }}`", remedy)
        for place, entry in pillow.transports:
            type = config.connections[entry.connection].type
            if not registry.transport(type).divisible:
                message = f"`{type}` does not take a pillow's documents from several daemons"
                yield config.problem((*at, *place), message, f"use one of {', '.join(_list_divisible())}")
        first, source = readers.setdefault(pillow.source.name, (name, pillow.source))
        for key in SourceOptions.model_fields:
            if key not in _OWN_SETTINGS and getattr(source, key) != getattr(pillow.source, key):
                message = f"differs from that of `{first}`, and the database is read once for both"
                yield config.problem((*at, "source", key), message, "write the same in both")


def _find_unfit(pillow: PillowConfig) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield key, message and remedy of each setting that needs the feed of a single daemon."""
    source = pillow.source
    if source.databases:
        yield ("source", "databases"), "is not possible", "name one `database`"
    elif len(source.database) > _MAX_DATABASE:
        message = f"is longer than {_MAX_DATABASE} characters, too long for a topic's name"
        yield ("source", "database"), message, "use another `coordination` for it"
    if source.is_filtered_by_server:
        yield ("source",), "a filter in the server is not possible", "filter in pillowd"
    if source.since != "beginning":
        yield ("source", "since"), "is not possible", "remove it; the topic has every document"
    if pillow.load.workers:
        yield ("load", "workers"), "is not possible", "remove it, and start more daemons"
    if pillow.isolate:
        yield ("isolate",), "is not possible", "remove it"
    if pillow.next is not None:
        yield ("next",), "is not possible", "change the pillow itself, then reset its checkpoint"
    if pillow.rebuild == "auto":
        yield ("rebuild",), "`auto` is not possible", "write `ask`"
    if pillow.verify.every is not None:
        yield ("verify", "every"), "is not possible", "run `pillowd verify` on a schedule of your own"


def _list_divisible() -> list[str]:
    return sorted(type for type in registry.transport_types() if registry.transport(type).divisible)
