"""Build a pillow on several databases, and the parts that differ for each database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from checkpoints import TailKey
from daemon.assembly.feeds import build_backfill_source
from daemon.assembly.pipelines import build_pipeline, build_transports
from daemon.assembly.prefilters import make_prefilter
from daemon.assembly.services import Services
from daemon.backfill.backfills import Backfills
from daemon.backfill.turn_backfill import TurnBackfill
from daemon.config.models import Config
from daemon.config.several_databases import fill_in_constants, has_outputs_apart
from pillows.couch.client import CouchClient
from pillows.databases.databases_tail import DatabasesTail
from pillows.databases.settings import DatabasesSettings
from pillows.pillow import Pillow
from pillows.runtime.tail_settings import TailServices, TailSettings


def build_databases(
    config: Config, settings: TailSettings, parts: TailServices, services: Services
) -> Callable[[], DatabasesTail]:
    """Return the factory of a pillow on several databases.

    Args:
        config: a valid configuration.
        settings: of all databases together.
        parts: the services of the tail.
        services: what all tails share.
    """
    pillow = config.tails[settings.key.pillow]
    connection: Any = config.connections[pillow.source.connection].options

    def make_client() -> CouchClient:
        if services.feeds is not None:
            return services.feeds.get_client(connection)
        return CouchClient(connection, clock=services.clock)

    several = DatabasesSettings(
        tail=settings,
        source=pillow.source,
        make_client=make_client,
        pillow_of=_make_pillow_of(config, settings),
        prefilter=make_prefilter(settings.pillow.filter),
        make_apart=(lambda tail: build_transports(config, tail)) if has_outputs_apart(pillow) else None,
        is_paused=services.is_paused,
        **_serve_backfills(config, services.backfills),
    )
    return lambda: DatabasesTail(several, parts, services.store)


def _serve_backfills(config: Config, backfills: Backfills | None) -> dict[str, Any]:
    """Return settings with which backfills run in turns."""
    if backfills is None:
        return {}

    def make(key: TailKey, is_over: Callable[[], bool]) -> TurnBackfill | None:
        if key not in backfills.list_ready():
            return None
        return TurnBackfill(backfills, key, build_backfill_source(config, key), is_over)

    return {"list_backfills": backfills.list_ready, "make_backfill": make}


def _make_pillow_of(config: Config, settings: TailSettings) -> Callable[[TailKey], Pillow]:
    """Return a factory for the pipeline of a database: one for all, unless a constant contains `{source}`."""
    written = config.tails[settings.key.pillow]
    if fill_in_constants(written, "a") == written:
        return lambda _: settings.pillow
    return lambda tail: build_pipeline(config, tail)
