"""The sources of metrics that are read at each scrape: states, connections, configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from checkpoints import TailKey
from daemon.config.models import Config
from daemon.rebuilds.record import Rebuild
from daemon.reload.reloader import Reloader, ReloadRecord
from daemon.state_dir import StateDir
from pillows.couch.options import CouchConnection
from pillows.feed.shared.pool import FeedPool
from pillows.runtime.status import TailStatus


class TailLabels(Struct, frozen=True, kw_only=True):
    """The labels of one tail.

    Attributes:
        connection: the connection of its source.
        source: the database.
        transports: the names of its transports.
        verifies: whether its targets are compared with the source on a schedule.
    """

    connection: str
    source: str
    transports: tuple[str, ...]
    verifies: bool = False


class ConnectionFacts(Struct, frozen=True, kw_only=True):
    """Outcomes of the requests to one source.

    Attributes:
        open: connections that are open.
        outcomes: outcome -> number of requests.
    """

    open: int
    outcomes: Mapping[str, int]


class Facts(Struct, frozen=True, kw_only=True):
    """The sources of metrics that are read at each scrape.

    Attributes:
        statuses: returns the status of every tail.
        labels_of: returns the labels of a tail; None if the configuration does not have it.
        connections: returns name -> facts of each connection to a source.
        reload: returns the outcome of the reloads so far.
        requests: (operation, method, status) -> number of requests to the HTTP API.
        rebuilds: returns the record of each pillow that was rebuilt.
        expiries: returns the wall-clock seconds when the certificates of listeners expire.
        backfills: returns the progress of a tail's backfill; see `Backfills.measure`.
    """

    statuses: Callable[[], Sequence[TailStatus]]
    labels_of: Callable[[TailKey], TailLabels | None]
    connections: Callable[[], Mapping[str, ConnectionFacts]]
    reload: Callable[[], ReloadRecord]
    requests: Mapping[tuple[str, str, int], int]
    rebuilds: Callable[[], Mapping[TailKey, Rebuild]]
    expiries: Callable[[], Sequence[float]]
    backfills: Callable[[TailKey], Mapping[str, Any] | None]


def collect_facts(
    statuses: Callable[[], Sequence[TailStatus]],
    requests: Mapping[tuple[str, str, int], int],
    feeds: FeedPool | None,
    reloader: Reloader,
    state: StateDir,
    expiries: Callable[[], Sequence[float]],
) -> Facts:
    """Return the facts of a running daemon.

    Args:
        statuses: as in `Facts`.
        requests: as in `Facts`.
        feeds: provides the clients of the sources.
        reloader: provides the configuration in effect.
        state: provides the rebuilds and backfills.
        expiries: as in `Facts`.
    """
    return Facts(
        statuses=statuses,
        labels_of=lambda tail: describe_tail(reloader.config, tail),
        connections=lambda: describe_connections(reloader.config, feeds),
        reload=lambda: reloader.record,
        requests=requests,
        expiries=expiries,
        rebuilds=lambda: state.rebuilds.all,
        backfills=state.backfills.measure,
    )


def describe_tail(config: Config, key: TailKey) -> TailLabels | None:
    """Return the labels of a tail; None if the configuration does not have it."""
    settings = config.tails.get(key.pillow)
    if settings is None or key.source != settings.source.name:
        return None
    return TailLabels(
        connection=settings.source.connection,
        source=settings.source.name.partition("/")[2],
        transports=tuple(entry.name for entry in settings.transport),
        verifies=settings.verify.every is not None,
    )


def describe_connections(config: Config, feeds: FeedPool | None) -> Mapping[str, ConnectionFacts]:
    """Return name -> facts of each connection that a pillow reads from."""
    found = {}
    for name in sorted({settings.source.connection for settings in config.tails.values()}):
        options = config.connections[name].options
        client = None
        if feeds is not None and isinstance(options, CouchConnection):
            client = feeds.find_client(options)
        found[name] = ConnectionFacts(
            open=client.open_connections if client else 0, outcomes=client.outcomes if client else {}
        )
    return found
