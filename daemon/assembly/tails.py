"""Build tails, and repair with what they are built of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import gevent
from gevent.event import Event

from checkpoints import TailKey
from daemon.assembly.feeds import build_feed, build_shared_feed
from daemon.assembly.pipelines import build_pillow, build_transports
from daemon.assembly.services import Services
from daemon.config.models import Config
from daemon.config.plugins import add_plugins, digest_functions
from daemon.config_digests import pipeline_digest, source_digest
from daemon.tail_lookup import tail_keys
from pillows.delivery.batcher import BatchPolicy
from pillows.errors import RetryableError
from pillows.feed.base import Feed
from pillows.progress.checkpointer import CheckpointPolicy
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailSettings
from pillows.stages.filters import Filter
from pillows.verify.repair import Repair

#: A repair that takes longer is given up: by then the client no longer waits for the answer.
REPAIR_SECONDS = 25.0


def build_tails(
    config: Config, services: Services, keys: Collection[TailKey] | None = None
) -> Mapping[TailKey, Callable[[], Tail]]:
    """Return a factory for each tail; each call of it builds a fresh one.

    Args:
        config: a valid configuration.
        services: what the tails share.
        keys: which tails; all enabled ones unless given.

    Raises:
        ConfigError: a Python path cannot be imported.
    """
    add_plugins(config.daemon.plugins_path)

    def factory(settings: TailSettings) -> Callable[[], Tail]:
        return lambda: Tail(settings)

    wanted = tail_keys(config) if keys is None else keys
    return {key: factory(build_tail_settings(config, key, services)) for key in wanted}


def build_tail_settings(config: Config, key: TailKey, services: Services) -> TailSettings:
    """Return everything that one tail is made of.

    Raises:
        ConfigError: a Python path cannot be imported.
    """
    settings = config.tails[key.pillow]
    pillow = build_pillow(key.pillow, settings, config.daemon.plugins_path)
    checkpoints = CheckpointPolicy(
        interval_seconds=config.checkpoints.interval,
        max_uncheckpointed=config.checkpoints.max_uncheckpointed,
    )
    return TailSettings(
        key=key,
        pillow=pillow,
        make_feed=lambda: _build_feed(config, key, pillow.filter, services),
        make_transports=lambda: build_transports(config, key),
        source_digest=source_digest(settings),
        pipeline_digest=pipeline_digest(settings, digest_functions(settings, config.daemon.plugins_path)),
        reload_recreated=settings.source.on_recreated == "reload",
        batch=BatchPolicy(
            max_docs=settings.batch.max_docs,
            max_bytes=settings.batch.max_bytes,
            linger_seconds=settings.batch.linger,
        ),
        max_in_flight=settings.batch.max_in_flight,
        checkpoints=checkpoints,
        max_consecutive=settings.errors.max_consecutive,
        write_timeouts_seconds={entry.name: entry.timeout for entry in settings.transport},
        max_tries=settings.errors.max_tries,
        max_dead_letters=settings.errors.max_dead_letters,
        store=services.store,
        dead_letters=services.dead_letters,
        clock=services.clock,
        observer=services.observer,
    )


def _build_feed(config: Config, key: TailKey, filter: Filter, services: Services) -> Feed:
    if services.feeds is not None:
        return build_shared_feed(config, key, filter, services.feeds)
    return build_feed(config, key, filter, clock=services.clock, observer=services.observer)


def repair_documents(config: Config, services: Services, key: TailKey, ids: Sequence[str]) -> None:
    """Send documents of a tail that does not run through its pipeline again.

    Raises:
        RetryableError, StoppedError: source or target was away for too long.
        FatalError: the pipeline cannot run.
    """
    add_plugins(config.daemon.plugins_path)
    halt = Event()
    alarm = gevent.spawn_later(REPAIR_SECONDS, halt.set)
    try:
        Repair(build_tail_settings(config, key, replace(services, feeds=None)), ids, halt=halt).execute()
        if halt.is_set():
            raise RetryableError(f"Source or target was away: not all was sent in {REPAIR_SECONDS:g} s.")
    finally:
        alarm.kill()
