"""Builds tails from a configuration: the one place where settings become parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from checkpoints import CheckpointStore, TailKey
from daemon.config.models import Config, PillowConfig, TransportConfig
from daemon.config.pipeline import FilterOptions, StepOptions
from daemon.config.plugins import add_plugins, digest_functions, find_function
from daemon.config_digests import pipeline_digest, source_digest
from pillows import registry
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.delivery.batcher import BatchPolicy
from pillows.errors import RetryableError
from pillows.feed.base import Feed
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.shared.pool import FeedPool
from pillows.models import Change
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.progress.checkpointer import CheckpointPolicy
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import Plan
from pillows.stages.declarative import ChildRows, Step
from pillows.stages.filters import Filter, JmespathFilter, KeepAll, PythonFilter
from pillows.stages.transforms import Chain, ChunkedTransform, PassThrough, PythonTransform, Transform
from pillows.transports.base import KeyedTransport, Transport
from pillows.verify.repair import Repair
from pillows.verify.verifier import needs_documents

#: A repair that is not done by then is given up: whoever asked for it waits no longer.
REPAIR_SECONDS = 25.0


def tail_key(name: str, pillow: PillowConfig) -> TailKey:
    """The key of a pillow's tail."""
    return TailKey(name, f"{pillow.source.connection}/{pillow.source.database}")


def tail_keys(config: Config) -> list[TailKey]:
    """The keys of all enabled pillows' tails, in configured order."""
    return [tail_key(name, pillow) for name, pillow in config.tails.items() if pillow.enabled]


def build_tails(
    config: Config,
    *,
    store: CheckpointStore,
    letters: DeadLetters,
    clock: Clock,
    observer: Observer,
    keys: Collection[TailKey] | None = None,
) -> Mapping[TailKey, Callable[[], Tail]]:
    """Makes a factory of tails for each pillow; each call of it builds a fresh tail.

    Args:
        config: a valid configuration.
        store: where checkpoints are saved.
        letters: where dead letters are kept.
        clock: handed to every part.
        observer: handed to every part.
        keys: which tails; all enabled ones unless given.

    Raises:
        ConfigError: a python path can't be imported.
    """
    add_plugins(config.daemon.plugins_path)
    wanted = tail_keys(config) if keys is None else keys
    groups = FeedPool(clock=clock, observer=observer)

    def factory(plan: Plan) -> Callable[[], Tail]:
        return lambda: Tail(plan)

    return {
        key: factory(
            build_plan(
                config, key, store=store, letters=letters, clock=clock, observer=observer, groups=groups
            )
        )
        for key in wanted
    }


def build_plan(
    config: Config,
    key: TailKey,
    *,
    store: CheckpointStore,
    letters: DeadLetters,
    clock: Clock,
    observer: Observer,
    groups: FeedPool | None = None,
) -> Plan:
    """Everything that one tail is made of.

    Raises:
        ConfigError: a python path can't be imported.
    """
    settings = config.tails[key.pillow]
    pillow = build_pillow(key.pillow, settings, config.daemon.plugins_path)
    checkpoints = CheckpointPolicy(
        interval_seconds=config.checkpoints.interval,
        max_uncheckpointed=config.checkpoints.max_uncheckpointed,
    )
    return Plan(
        key=key,
        pillow=pillow,
        make_feed=lambda: build_feed(
            config, key, pillow.filter, clock=clock, observer=observer, groups=groups
        ),
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
        store=store,
        letters=letters,
        clock=clock,
        observer=observer,
    )


def build_pillow(name: str, settings: PillowConfig, folders: Sequence[Path] = ()) -> Pillow:
    """The pipeline of one pillow.

    Args:
        name: its name.
        settings: what is configured.
        folders: where modules may register filters and transforms (`daemon.plugins_path`).

    Raises:
        ConfigError: a function can't be found.
    """
    outputs = settings.outputs or (name,)
    return Pillow(
        name=name,
        outputs=outputs,
        filter=_filter(settings.filter, folders),
        transform=_transform(settings.steps, outputs, folders),
        keep_departed=settings.source.on_filtered == "ignore",
        keep_deleted=settings.source.deletes == "ignore",
        max_attachment_bytes=settings.attachments.max_size if settings.attachments.fetch else 0,
    )


def build_feed(
    config: Config,
    key: TailKey,
    filter: Filter,
    *,
    clock: Clock,
    observer: Observer,
    groups: FeedPool | None = None,
) -> Feed:
    """The feed of one tail; with `groups` it shares a connection with others on its database."""
    settings = config.tails[key.pillow]
    connection: Any = config.connections[settings.source.connection].options

    def wanted(change: Change) -> bool:
        return not change.deleted and filter(change)

    prefilter = None if filter.needs_document or isinstance(filter, KeepAll) else wanted
    if groups is not None:
        return groups.feed(connection, settings.source, prefilter=prefilter, key=key)
    feed: Feed = CouchFeed(
        connection, settings.source, prefilter=prefilter, clock=clock, observer=observer, key=key
    )
    return feed


def build_ids_feed(
    config: Config, key: TailKey, pillow: Pillow, *, clock: Clock, observer: Observer
) -> CouchFeed:
    """The feed of one tail for whoever compares: documents come along only where they are needed."""
    settings = config.tails[key.pillow].source
    connection: Any = config.connections[settings.connection].options
    if needs_documents(pillow):
        return CouchFeed(connection, settings, clock=clock, observer=observer, key=key)
    ids = settings.model_copy(update={"documents": "bulk_get"})  # and then none is wanted
    return CouchFeed(connection, ids, prefilter=lambda _: False, clock=clock, observer=observer, key=key)


def repair(
    config: Config,
    key: TailKey,
    ids: Sequence[str],
    *,
    store: CheckpointStore,
    letters: DeadLetters,
    clock: Clock,
    observer: Observer,
) -> None:
    """Sends documents of a tail that does not run through its pipeline again.

    Raises:
        RetryableError, StoppedError: source or target was away for too long.
        FatalError: it can't be done.
    """
    add_plugins(config.daemon.plugins_path)
    halt = Event()
    alarm = gevent.spawn_later(REPAIR_SECONDS, halt.set)
    try:
        plan = build_plan(config, key, store=store, letters=letters, clock=clock, observer=observer)
        Repair(plan, ids, halt=halt).execute()
        if halt.is_set():
            raise RetryableError(f"Source or target was away: not all was sent in {REPAIR_SECONDS:g} s.")
    finally:
        alarm.kill()


def build_transports(config: Config, key: TailKey) -> list[Transport]:
    """The transports of one tail, in configured order."""
    return [build_transport(config, key, entry) for entry in config.tails[key.pillow].transport]


def build_transport(config: Config, key: TailKey, entry: TransportConfig) -> Transport:
    """One transport of a tail.

    Raises:
        ConfigError: it refuses its settings.
    """
    connection = config.connections[entry.connection]
    source = config.tails[key.pillow].source
    transport = registry.transport(connection.type)(entry.name, key, connection.options, entry.outputs)
    if isinstance(transport, KeyedTransport):
        transport.set_source(config.connections[source.connection].options, source.database)
    return transport


def _filter(settings: FilterOptions | None, folders: Sequence[Path]) -> Filter:
    if settings is None:
        return KeepAll()
    if settings.jmespath is not None:
        return JmespathFilter(settings.jmespath)
    function = find_function(
        "filter", python=settings.python, name=settings.name, args=settings.args, folders=folders
    )
    return PythonFilter(function, needs_document=settings.needs_document)


def _transform(steps: Sequence[StepOptions], outputs: Sequence[str], folders: Sequence[Path]) -> Transform:
    if not steps:
        return PassThrough(outputs)
    made = [_step(each, folders) for each in steps]
    if len(made) == 1 and not isinstance(made[0], Step):
        if steps[0].chunk is not None:
            return ChunkedTransform(made[0], outputs, chunk=steps[0].chunk)
        return PythonTransform(made[0], outputs)
    return Chain(made, outputs)


def _step(settings: StepOptions, folders: Sequence[Path]) -> Step | Callable[[Any], Any]:
    if settings.is_python:
        return find_function(
            "transform", python=settings.python, name=settings.name, args=settings.args, folders=folders
        )
    rows = {
        output: ChildRows(each=child.each, fields=child.fields, parent=child.parent)
        for output, child in settings.rows.items()
    }
    return Step(**{**settings.declared, "rows": rows})
