"""Make feeds that share clients and connections: one shared feed for each database and way of reading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from checkpoints import TailKey
from checkpoints.checkpoint import NO_TAIL
from pillows.clock import Clock, SystemClock
from pillows.couch.client import CouchClient
from pillows.couch.options import CouchConnection
from pillows.feed.base import Feed
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.follow import MAX_LIFE_SECONDS
from pillows.feed.options import SourceOptions
from pillows.feed.shared.shared_feed import ALONE_SECONDS, SharedFeed
from pillows.feed.shared.subscribed_feed import SubscribedFeed
from pillows.models import Change
from pillows.observer import Observer

#: Settings that may differ between readers of a shared feed.
_OWN_SETTINGS = {"connection", "since", "on_recreated", "max_missed_purges"}


class FeedPool:
    """Makes feeds that share clients and connections. One for a daemon, which closes it.

    It may outlive the configuration: a shared feed or a client is dropped after its last reader was closed.

    Args:
        clock: for waits and ages.
        observer: receives retries and warnings.
    """

    def __init__(self, *, clock: Clock | None = None, observer: Observer | None = None) -> None:
        self._clock = clock or SystemClock()
        self._observer = observer or Observer()
        self._clients: dict[CouchConnection, CouchClient] = {}
        self._shared: dict[tuple[CouchConnection, bytes], SharedFeed] = {}

    def open(
        self,
        connection: CouchConnection,
        source: SourceOptions,
        *,
        prefilter: Callable[[Change], bool] | None = None,
        tail: TailKey = NO_TAIL,
    ) -> Feed:
        """Return a feed of one tail, which the caller closes; arguments as for `CouchFeed`.

        A source with a server-side filter or `identity_token` gets a feed that is not shared.
        """
        self.drop_unused()
        if source.is_filtered_by_server or source.identity_token:
            return self._make_feed(
                connection,
                source,
                prefilter=prefilter,
                tail=tail,
                observer=self._observer,
                get_max_life_seconds=lambda: ALONE_SECONDS,
            )
        shared = self._get_shared(connection, source)
        own = self._make_feed(
            connection,
            source,
            prefilter=prefilter,
            tail=tail,
            observer=self._observer,
            get_max_life_seconds=shared.get_alone_seconds,
        )
        return SubscribedFeed(own, shared, prefilter or _want_all, tail)

    def drop_unused(self) -> None:
        """Forget the shared feeds and clients that no tail uses."""
        self._shared = {key: shared for key, shared in self._shared.items() if shared.readers}
        self._clients = {key: couch for key, couch in self._clients.items() if couch.is_used}

    def get_client(self, connection: CouchConnection) -> CouchClient:
        """Return the client of a connection. Its users acquire and release it."""
        if connection not in self._clients:
            self._clients[connection] = CouchClient(connection, clock=self._clock)
        return self._clients[connection]

    def find_client(self, connection: CouchConnection) -> CouchClient | None:
        """Return the client of a connection that is in use."""
        return self._clients.get(connection)

    def close(self) -> None:
        """Close every connection."""
        for couch in self._clients.values():
            couch.close()

    def _make_feed(
        self,
        connection: CouchConnection,
        source: SourceOptions,
        *,
        prefilter: Callable[[Change], bool] | None,
        tail: TailKey,
        observer: Observer,
        get_max_life_seconds: Callable[[], float],
    ) -> CouchFeed:
        return CouchFeed(
            connection,
            source,
            prefilter=prefilter,
            clock=self._clock,
            observer=observer,
            tail=tail,
            couch=self.get_client(connection),
            get_max_life_seconds=get_max_life_seconds,
        )

    def _get_shared(self, connection: CouchConnection, source: SourceOptions) -> SharedFeed:
        settings = msgspec.json.encode(source.model_dump(mode="json", exclude=_OWN_SETTINGS), order="sorted")
        key = (connection, settings)
        if key not in self._shared:
            self._shared[key] = self._make_shared(connection, source)
        return self._shared[key]

    def _make_shared(self, connection: CouchConnection, source: SourceOptions) -> SharedFeed:
        def make_feed(wants: Callable[[Change], bool]) -> CouchFeed:
            return self._make_feed(
                connection,
                source,
                prefilter=wants,
                tail=NO_TAIL,
                observer=_SubscribersObserver(self._observer, shared),
                get_max_life_seconds=lambda: MAX_LIFE_SECONDS,
            )

        shared = SharedFeed(
            make_feed,
            clock=self._clock,
            overlap_seconds=source.join_overlap,
            max_lag_bytes=source.queue,
        )
        return shared


class _SubscribersObserver(Observer):
    """Reports an event of a shared feed once for each tail that reads it."""

    def __init__(self, observer: Observer, shared: SharedFeed) -> None:
        self._observer = observer
        self._shared = shared

    def retry(self, tail: TailKey, **details: Any) -> None:  # noqa: ARG002 - for each reader instead
        for reader in self._shared.tails:
            self._observer.retry(reader, **details)

    def rewind(self, tail: TailKey, **details: Any) -> None:  # noqa: ARG002 - as above
        for reader in self._shared.tails:
            self._observer.rewind(reader, **details)

    def warning(self, tail: TailKey, **details: Any) -> None:  # noqa: ARG002 - as above
        for reader in self._shared.tails:
            self._observer.warning(reader, **details)


def _want_all(_: Change) -> bool:
    return True
