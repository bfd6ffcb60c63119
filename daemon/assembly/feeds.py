"""Build the feed of a tail."""

from __future__ import annotations

from typing import Any

from checkpoints import TailKey
from daemon.assembly.prefilters import Prefilter
from daemon.assembly.services import Services
from daemon.backfill.carrier import BackfillSource
from daemon.config.models import Config
from pillows.clock import Clock
from pillows.couch.client import CouchClient
from pillows.feed.base import Feed
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.document_ids import DocumentIds
from pillows.feed.options import SourceOptions
from pillows.feed.shared.pool import FeedPool
from pillows.observer import Observer
from pillows.pillow import Pillow


def build_shared_feed(config: Config, key: TailKey, prefilter: Prefilter, feeds: FeedPool) -> Feed:
    """Build a feed that shares a connection with other tails of its database."""
    connection, source = _source(config, key)
    return feeds.open(connection, source, prefilter=prefilter, tail=key)


def build_feed(
    config: Config, key: TailKey, prefilter: Prefilter, *, clock: Clock, observer: Observer
) -> Feed:
    """Build a feed with its own connection."""
    connection, source = _source(config, key)
    return CouchFeed(connection, source, prefilter=prefilter, clock=clock, observer=observer, tail=key)


def build_lone_feed(
    connection: Any,
    source: SourceOptions,
    key: TailKey,
    prefilter: Prefilter,
    *,
    services: Services,
    observer: Observer,
) -> CouchFeed:
    """Build a feed that shares only the client of its server."""
    return CouchFeed(
        connection,
        source,
        prefilter=prefilter,
        clock=services.clock,
        observer=observer,
        tail=key,
        couch=services.feeds.get_client(connection) if services.feeds is not None else None,
    )


def build_ids_feed(
    config: Config, key: TailKey, pillow: Pillow, *, clock: Clock, observer: Observer
) -> CouchFeed:
    """Build a feed for a comparison. It fetches documents only if the pillow's filter needs them."""
    connection, source = _source(config, key)
    if pillow.needs_document:
        return CouchFeed(connection, source, clock=clock, observer=observer, tail=key)
    ids = source.model_copy(update={"documents": "bulk_get"})  # the prefilter then fetches none
    return CouchFeed(connection, ids, prefilter=lambda _: False, clock=clock, observer=observer, tail=key)


def build_backfill_source(config: Config, key: TailKey) -> BackfillSource:
    """Return the source of a tail, for a backfill."""
    connection, source = _source(config, key)
    return BackfillSource(
        open_ids=lambda: DocumentIds(CouchClient(connection), source.database),
        overlap_seconds=source.join_overlap,
    )


def _source(config: Config, key: TailKey) -> tuple[Any, Any]:
    source = config.tails[key.pillow].source
    if source.databases:
        source = source.model_copy(update={"database": key.database, "databases": ()})
    return config.connections[source.connection].options, source
