"""Find the databases that the pillows of a service read, and build their readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from checkpoints import TailKey
from daemon.assembly.feeds import build_lone_feed
from daemon.assembly.services import Services
from daemon.config.models import Config
from daemon.kafka.engine import Engine
from daemon.kafka.readers import READER
from daemon.supervision.supervised_tail import TailFactory
from pillows.change_topics.page_writer import Destination
from pillows.change_topics.reader import Reader
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions


class Database(Struct, frozen=True, kw_only=True):
    """A database that is read once for all of its pillows.

    Attributes:
        connection: settings of the server.
        source: how it is read.
        partitions: of its topic.
    """

    connection: Any
    source: SourceOptions
    partitions: int


def find_databases(config: Config) -> Mapping[TailKey, Database]:
    """Return the databases of all enabled pillows, each under the key of its reader."""
    found: dict[TailKey, Database] = {}
    for pillow in config.tails.values():
        if not pillow.enabled:
            continue
        key, source = TailKey(READER, pillow.source.name), pillow.source
        known = found.get(key)
        # The pillows read the documents, so a reader fetches none unless it needs them. Each pillow leaves
        # design documents out by itself, since a later one may want them.
        own = {"documents": "bulk_get", "skip_design": False}
        found[key] = Database(
            connection=config.connections[source.connection].options,
            source=(known.source if known is not None else source).model_copy(update=own),
            partitions=config.coordination.number_of_partitions,
        )
    return found


def build_reader(key: TailKey, database: Database, engine: Engine, services: Services) -> TailFactory:
    """Return the factory of a reader."""
    destination = Destination(
        source=key.source,
        topics=engine.topics,
        connection=engine.options,
        partitions=database.partitions,
    )

    def make_feed() -> CouchFeed:
        return build_lone_feed(
            database.connection,
            database.source,
            key,
            lambda _: False,
            services=services,
            observer=services.observer,
        )

    return lambda: Reader(key, destination, make_feed, clock=services.clock, observer=services.observer)
