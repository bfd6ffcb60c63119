"""Build a pillow whose changes come from the partitions of a topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from gevent.event import Event
from msgspec.structs import replace

from checkpoints import TailKey
from daemon.assembly.feeds import build_backfill_source, build_lone_feed
from daemon.assembly.pipelines import build_transports
from daemon.assembly.prefilters import Prefilter
from daemon.assembly.services import Services
from daemon.backfill.backfill import ENDED, BackfillState, Selection
from daemon.backfill.backfills import Backfills
from daemon.config.models import Config
from daemon.config_digests import digest_settings
from daemon.kafka.engine import Engine
from daemon.kafka.operators.request_sender import RequestSender
from daemon.kafka.partition_group import AssignedPart
from daemon.kafka.partitioned_tail import PartitionedSettings, PartitionedTail
from pillows.change_topics.partition_feed import PartitionFeed
from pillows.clock import Clock
from pillows.databases.member_observer import MemberObserver
from pillows.errors import FencedError, RetryableError
from pillows.progress.lag import Rate
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.transports.base import Transport

#: Interval at which the end of a repair is looked for.
_STEP_SECONDS = 0.2


class PartTail(Tail):
    """The tail of one partition."""

    def run(self, stop: Any) -> None:
        """Run until `stop` is set; see `Tail.run`.

        Raises:
            RetryableError: another process has taken over the target. One of the two has lost the partition
                without noticing. If it was the other one, the next run takes the target back.
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
        wanted: returns whether a change's document is wanted.
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
        return PartitionFeed(
            assigned.reader, couch, pillow=key.pillow, clock=services.clock, skip_design=source.skip_design
        )

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
        digests=digest_settings(config.tails[key.pillow]),
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


def run_shared_backfills(config: Config, services: Services, key: TailKey, backfills: Backfills) -> None:
    """Run the backfills of a pillow that several daemons share: each writes those of its partitions.

    Raises:
        FatalError: the brokers refuse us, or the offset of a partition is lost.
    """
    with closing(RequestSender(_get_engine(services), key, services.clock, Event())) as sender:
        backfills.run_all(key, build_backfill_source(config, key), sender)


def repair_shared(backfills: Backfills, key: TailKey, ids: Sequence[str], clock: Clock) -> None:
    """Send documents of a pillow that several daemons share again, and wait until they are written.

    Raises:
        ConflictError: too many backfills wait.
        RetryableError: not all are written.
        OSError, StoreError: the state directory can't be written.
    """
    started = backfills.start(key, Selection(), ids)
    while (found := backfills.get(started.id)).state not in ENDED:
        clock.wait(Event(), _STEP_SECONDS)
    if found.state is not BackfillState.DONE:
        raise RetryableError(f"Not all documents were written: the backfill {found.id} is {found.state}.")


def _get_engine(services: Services) -> Engine:
    if services.engine is None:
        raise RuntimeError("A shared pillow needs the engine.")
    return services.engine
