"""Build the part of a worker that processes the chunks of its pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from daemon.assembly.pipelines import build_pillow
from daemon.assembly.prefilters import make_prefilter
from daemon.config.plugins import digest_functions
from daemon.workers.setup import WorkerSetup, load_connection, load_settings
from pillows.clock import SystemClock
from pillows.errors import ConfigError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.couch_feed import CouchFeed
from pillows.models import Change, Document
from pillows.parallel.chunk_work import ChunkWork
from pillows.parallel.worker import Channel


def open_work(payload: msgspec.Raw, channel: Channel) -> ChunkWork:
    """Return the part that processes chunks.

    Args:
        payload: of the setup.
        channel: for signs of life and warnings.

    Raises:
        ConfigError: a function cannot be imported, or was changed since the daemon imported it.
    """
    setup = msgspec.msgpack.decode(payload, type=WorkerSetup)
    settings = load_settings(setup.settings)
    folders = [Path(folder) for folder in setup.plugins_path]
    pillow = build_pillow(setup.key.pillow, settings, folders)
    if digest_functions(settings, folders) != list(setup.code):
        raise ConfigError(
            "Modules of the pillow's functions have changed since the daemon imported them.",
            remedy="`pillowd reload`; restart the daemon if the modules are not in `daemon.plugins_path`",
        )
    clock = SystemClock()
    feed = CouchFeed(
        load_connection(setup.connection),
        settings.source,
        prefilter=make_prefilter(pillow.filter),
        clock=clock,
        tail=setup.key,
    )
    return ChunkWork(
        pillow,
        tail=setup.key,
        source=_Source(feed, setup.database),
        channel=channel,
        clock=clock,
        as_json=setup.as_json,
        with_text=settings.errors.exception_text,
    )


class _Source:
    """The source, with the identity of the database that the tail's checkpoint belongs to."""

    def __init__(self, feed: CouchFeed, identity: DatabaseIdentity) -> None:
        self._feed = feed
        self._identity = identity

    def load(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Return changes with their documents."""
        return self._feed.load(changes, self._identity)

    def fetch(self, change: Change) -> Document:
        """Fetch the document of a change."""
        return self._feed.fetch(change)

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Read an attachment."""
        return self._feed.attachment(id, rev, name, max_bytes)

    def close(self) -> None:
        """Close every connection."""
        self._feed.close()
