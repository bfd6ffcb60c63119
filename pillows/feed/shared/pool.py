"""Which feeds read the same: those of one database of one server, read in the same way."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from checkpoints import TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.clock import Clock, SystemClock
from pillows.couch.client import CouchClient
from pillows.couch.options import CouchConnection
from pillows.feed.base import Feed
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions
from pillows.feed.reader import MAX_LIFE_SECONDS
from pillows.feed.shared.shared_feed import ALONE_SECONDS, SharedFeed, SubscribedFeed
from pillows.models import Change
from pillows.observer import Observer

#: Settings that may differ between readers who share a connection.
_OWN_SETTINGS = {"connection", "since", "on_recreated"}


class FeedPool:
    """Makes feeds that share clients, and connections where they can. Made once for a daemon.

    Args:
        clock: for waits and ages.
        observer: told of retries and warnings.
    """

    def __init__(self, *, clock: Clock | None = None, observer: Observer | None = None) -> None:
        self._clock = clock or SystemClock()
        self._observer = observer or Observer()
        self._clients: dict[CouchConnection, CouchClient] = {}
        self._groups: dict[tuple[CouchConnection, bytes], SharedFeed] = {}

    def feed(
        self,
        connection: CouchConnection,
        source: SourceOptions,
        *,
        prefilter: Callable[[Change], bool] | None = None,
        tail: TailKey = NO_TAIL,
    ) -> Feed:
        """A feed of one pillow; arguments as for `CouchFeed`.

        One with a filter, or with a token of its own in the database, reads alone.
        """
        couch = self._client(connection)

        def own(wants: Callable[[Change], bool] | None, life_seconds: float, whose: TailKey) -> CouchFeed:
            return CouchFeed(
                connection,
                source,
                prefilter=wants,
                clock=self._clock,
                observer=self._observer,
                tail=whose,
                couch=couch,
                max_life_seconds=life_seconds,
            )

        if source.filtered or source.identity_token:
            return own(prefilter, ALONE_SECONDS, tail)
        group = self._group(connection, source, lambda wants: own(wants, MAX_LIFE_SECONDS, tail))
        return SubscribedFeed(own(prefilter, ALONE_SECONDS, tail), group, prefilter or _everything)

    def close(self) -> None:
        """Closes every connection."""
        for couch in self._clients.values():
            couch.close()

    def _client(self, connection: CouchConnection) -> CouchClient:
        if connection not in self._clients:
            self._clients[connection] = CouchClient(connection, clock=self._clock)
        return self._clients[connection]

    def _group(
        self,
        connection: CouchConnection,
        source: SourceOptions,
        make_feed: Callable[[Callable[[Change], bool]], CouchFeed],
    ) -> SharedFeed:
        settings = msgspec.json.encode(source.model_dump(mode="json", exclude=_OWN_SETTINGS), order="sorted")
        key = (connection, settings)
        if key not in self._groups:
            self._groups[key] = SharedFeed(
                make_feed,
                clock=self._clock,
                overlap_seconds=source.join_overlap,
                max_lag_bytes=source.queue,
            )
        return self._groups[key]


def _everything(_: Change) -> bool:
    return True
