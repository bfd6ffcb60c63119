"""A reader in a process of its own, to kill: `SERVER SERVICE URL DATABASE [USER PASSWORD]`."""

from __future__ import annotations

import tests.patched  # noqa: F401  # isort: skip

import sys

from gevent.event import Event

from checkpoints import TailKey
from pillows.change_topics.names import ServiceTopics
from pillows.change_topics.page_writer import Destination
from pillows.change_topics.reader import Reader
from pillows.clock import SystemClock
from pillows.couch.options import CouchConnection
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions
from pillows.kafka.options import KafkaConnection
from pillows.observer import Observer
from tests.support.couch_auth import to_auth


def make_reader(server: str, service: str, url: str, database: str, *login: str) -> Reader:
    """Return the reader of a database."""
    couch = CouchConnection(url=url, auth=to_auth((login[0], login[1])) if login else None)
    key = TailKey("reader", f"couch/{database}")
    source = SourceOptions(connection="couch", database=database, documents="bulk_get", skip_design=False)
    clock = SystemClock()
    return Reader(
        key,
        Destination(
            source=key.source,
            topics=ServiceTopics(service),
            connection=KafkaConnection(servers=(server,)),
            partitions=4,
        ),
        lambda: CouchFeed(couch, source, prefilter=lambda _: False, clock=clock, tail=key),
        clock=clock,
        observer=Observer(),
    )


if __name__ == "__main__":
    make_reader(*sys.argv[1:]).run(Event())
