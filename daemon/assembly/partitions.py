"""Build a pillow whose changes come from the partitions of a topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from daemon.assembly.feeds import Prefilter, build_lone_feed
from daemon.assembly.pipelines import build_transports
from daemon.assembly.services import Services
from daemon.config.models import Config
from daemon.kafka.engine import Engine
from daemon.kafka.partition_group import AssignedPart
from daemon.kafka.partitioned_tail import PartitionedSettings, PartitionedTail
from pillows.change_topics.partition_feed import PartitionFeed
from pillows.databases.member_observer import MemberObserver
from pillows.errors import FencedError, RetryableError
from pillows.progress.lag import Rate
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.transports.base import Transport


class PartTail(Tail):
    """The tail of one partition."""

    def run(self, stop: Any) -> None:
        """Run until `stop` is set; see `Tail.run`.

        Raises:
            RetryableError: another process has taken the target over. One of the two has lost the partition
                and does not know it yet; if it is not this one, the next run takes the target back.
            FatalError: the tail cannot continue.
        """
        try:
            super().run(stop)
        except FencedError as error:
            raise RetryableError(error.detail) from error


def build_partitioned(
    config: Config, settings: TailSettings, parts: TailServices, wanted: Prefilter, services: Services
) -> Callable[[], PartitionedTail]:
    """Return the factory of a pillow that the daemons of a service share.

    Args:
        config: a valid configuration.
        settings: of the pillow.
        parts: the services of its tails.
        wanted: whether a change's document is wanted.
        services: what all tails share.
    """
    key, engine = settings.key, _get_engine(services)
    source = config.tails[key.pillow].source
    connection: Any = config.connections[source.connection].options
    observer = MemberObserver(services.observer, key, Rate(services.clock))

    def make_feed(assigned: AssignedPart) -> PartitionFeed:
        couch = build_lone_feed(
            connection, source, assigned.part.key, wanted, services=services, observer=observer
        )
        return PartitionFeed(assigned.reader, couch, clock=services.clock, skip_design=source.skip_design)

    def make_transports(assigned: AssignedPart) -> Sequence[Transport]:
        transports = build_transports(config, key)
        for transport in transports:
            transport.take_part(assigned.part)
        return transports

    def make_tail(assigned: AssignedPart) -> Callable[[], PartTail]:
        own = replace(
            parts,
            make_feed=lambda: make_feed(assigned),
            make_transports=lambda: make_transports(assigned),
            store=assigned.checkpoints,
            observer=observer,
            backfill=None,
            check_ownership=assigned.check_ownership,
            is_ours=assigned.is_ours,
        )
        return lambda: PartTail(replace(settings, key=assigned.part.key, is_part=True), own)

    partitioned = PartitionedSettings(
        key=key,
        partitions=config.coordination.number_of_partitions,
        policy=config.daemon.restart,
        stop_timeout_seconds=config.daemon.shutdown_timeout,
    )
    return lambda: PartitionedTail(
        partitioned,
        engine,
        make_tail,
        dead_letters=services.dead_letters,
        clock=services.clock,
        observer=services.observer,
        part_observer=observer,
    )


def _get_engine(services: Services) -> Engine:
    if services.engine is None:
        raise RuntimeError("There is no engine.")
    return services.engine
