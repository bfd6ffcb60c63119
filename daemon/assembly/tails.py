"""Build tails, and repair documents with the same parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from gevent.event import Event
from msgspec.structs import replace

from checkpoints import ConfigDigest, TailKey
from daemon.assembly.feeds import build_backfill_source, build_feed, build_shared_feed
from daemon.assembly.pipelines import build_pipeline, build_transports
from daemon.assembly.prefilters import Prefilter, make_prefilter
from daemon.assembly.services import Services
from daemon.backfill.backfills import Backfills
from daemon.config.models import Config, PillowConfig
from daemon.config.plugin_modules import add_folders
from daemon.config.plugins import digest_functions
from daemon.config_digests import pipeline_digest, source_digest
from daemon.supervision.supervised_tail import Runnable
from daemon.tail_lookup import tail_keys
from daemon.workers.wanted_documents import choose_documents
from pillows.clock import Clock
from pillows.delivery.batcher import WORKERS_MAX_DOCS, BatchOptions
from pillows.feed.base import Feed
from pillows.runtime.document_sender import DocumentSender
from pillows.runtime.missed_purges import MissedPurgesOptions
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import MakeCarrier, TailServices, TailSettings
from pillows.runtime.without_feed import open_sender
from pillows.verify.repair import limit_repair, repair


def build_tails(
    config: Config, services: Services, keys: Collection[TailKey] | None = None
) -> Mapping[TailKey, Callable[[], Runnable]]:
    """Return a factory for each tail; each call builds a new one.

    Args:
        config: a valid configuration.
        services: what the tails share.
        keys: which tails; all enabled ones unless given.

    Raises:
        ConfigError: a Python path cannot be imported.
    """
    add_folders(config.daemon.plugins_path)

    def factory(key: TailKey) -> Callable[[], Runnable]:
        settings = build_tail_settings(config, key)
        parts = build_services(config, key, settings, services)
        if config.tails[key.pillow].source.databases:
            from daemon.assembly.databases import build_databases  # noqa: PLC0415 - few pillows need it

            return build_databases(config, settings, parts, services)
        if services.engine is not None:
            from daemon.assembly.partitions import build_partitioned  # noqa: PLC0415 - needs Kafka's client

            wanted = choose_documents(config.tails[key.pillow], make_prefilter(settings.pillow.filter))
            return build_partitioned(config, settings, parts, wanted, services)
        return lambda: Tail(settings, parts)

    wanted = tail_keys(config) if keys is None else keys
    return {key: factory(key) for key in wanted}


def build_tail_settings(config: Config, key: TailKey) -> TailSettings:
    """Return the settings of one tail.

    Raises:
        ConfigError: a Python path cannot be imported.
    """
    settings, plugins = config.tails[key.pillow], config.daemon.plugins_path
    return TailSettings(
        key=key,
        pillow=build_pipeline(config, key),
        digest=ConfigDigest(
            source=source_digest(settings),
            pipeline=pipeline_digest(settings, digest_functions(settings, plugins)),
        ),
        reload_recreated=settings.source.on_recreated == "reload",
        batch=_choose_batch(settings),
        checkpoints=config.checkpoints,
        errors=settings.errors,
        missed_purges=MissedPurgesOptions(
            max_documents=settings.source.max_missed_purges, overlap_seconds=settings.source.join_overlap
        ),
        write_timeouts_seconds={entry.name: entry.timeout for entry in settings.transport},
    )


def _choose_batch(settings: PillowConfig) -> BatchOptions:
    """Return the bounds of a pillow's batches; with worker processes they are smaller unless configured."""
    if not settings.load.workers or "max_docs" in settings.batch.model_fields_set:
        return settings.batch
    return settings.batch.model_copy(update={"max_docs": WORKERS_MAX_DOCS})


def build_services(config: Config, key: TailKey, settings: TailSettings, services: Services) -> TailServices:
    """Return the services of one tail."""
    wanted = choose_documents(config.tails[key.pillow], make_prefilter(settings.pillow.filter))
    return TailServices(
        make_feed=lambda: _build_feed(config, key, wanted, services),
        make_transports=lambda: build_transports(config, key),
        store=services.store,
        dead_letters=services.dead_letters,
        clock=services.clock,
        observer=services.observer,
        make_carrier=_find_carrier(config, key, services.clock, wanted),
        backfill=None if services.backfills is None else _serve_backfills(config, key, services.backfills),
    )


def _serve_backfills(config: Config, key: TailKey, backfills: Backfills) -> Callable[[DocumentSender], None]:
    source = build_backfill_source(config, key)
    return lambda sender: backfills.serve(key, source, sender)


def run_backfills(config: Config, services: Services, key: TailKey, backfills: Backfills) -> None:
    """Run the backfills of a tail that does not run.

    Raises:
        FatalError: the pipeline cannot run.
    """
    add_folders(config.daemon.plugins_path)
    settings = build_tail_settings(config, key)
    alone = build_services(config, key, settings, replace(services, feeds=None, backfills=None))
    with open_sender(settings, alone, halt=Event()) as sender:
        backfills.run_all(key, build_backfill_source(config, key), sender)


def _find_carrier(config: Config, key: TailKey, clock: Clock, wanted: Prefilter) -> MakeCarrier | None:
    settings = config.tails[key.pillow]
    if not settings.load.workers and not settings.isolate:
        return None
    # Imported here: most pillows have no worker processes.
    from daemon.workers.carriers import find_carrier  # noqa: PLC0415  see above

    return find_carrier(config, key, clock, wanted)


def _build_feed(config: Config, key: TailKey, prefilter: Prefilter, services: Services) -> Feed:
    if services.feeds is not None:
        return build_shared_feed(config, key, prefilter, services.feeds)
    return build_feed(config, key, prefilter, clock=services.clock, observer=services.observer)


def repair_documents(config: Config, services: Services, key: TailKey, ids: Sequence[str]) -> None:
    """Send documents of a tail that does not run through its pipeline again.

    Raises:
        RetryableError, StoppedError: the source or the target was unreachable for too long.
        FatalError: the pipeline cannot run.
    """
    add_folders(config.daemon.plugins_path)
    with limit_repair() as halt:
        settings = build_tail_settings(config, key)
        alone = build_services(config, key, settings, replace(services, feeds=None))
        repair(settings, alone, ids, halt=halt)
