"""Carry the changes of a tail with worker processes, as its configuration says."""

from __future__ import annotations

import os
from collections.abc import Callable

from checkpoints import TailKey
from daemon.assembly.prefilters import Prefilter
from daemon.config.models import Config
from daemon.process.environment import choose_environment
from daemon.workers.setup import make_setup
from daemon.workers.wanted_documents import LeftToWorkers
from pillows.clock import Clock
from pillows.feed.base import DatabaseIdentity
from pillows.parallel.coordinator import count_workers
from pillows.parallel.pipeline import ParallelPipeline
from pillows.parallel.pool import PoolEvents, WorkerLimits, WorkerPool
from pillows.parallel.process import Program
from pillows.pillow import Pipeline
from pillows.retry.retrier import Retrier
from pillows.runtime.tail_settings import MakeCarrier

#: A worker without a sign of life for this time is killed; so is a single call of a function that takes
#: longer.
HANG_SECONDS = 60.0


def find_carrier(config: Config, key: TailKey, clock: Clock, wanted: Prefilter) -> MakeCarrier:
    """Return the factory of a tail's carrier with worker processes.

    Args:
        config: a valid configuration, whose functions are imported.
        key: the tail's key.
        clock: for ages and waits.
        wanted: decides which documents the feed includes.
    """
    settings = config.tails[key.pillow]
    workers = count_workers(settings.load.workers)
    limits = WorkerLimits(memory_bytes=settings.load.worker_memory, hang_seconds=HANG_SECONDS, tasks=2)

    def make_carrier(
        pipeline: Pipeline, retrier: Retrier, identity: DatabaseIdentity, on_error: Callable[[], None]
    ) -> ParallelPipeline:
        program = Program(
            module="daemon.workers",
            setup=make_setup(config, key, identity),
            environ=choose_environment(os.environ),
        )

        def make_pool(size: int, events: PoolEvents) -> WorkerPool:
            return WorkerPool(program, size, limits=limits, clock=clock, events=events)

        def note_size(size: int) -> None:
            if isinstance(wanted, LeftToWorkers):
                wanted.workers = size

        return ParallelPipeline(
            pipeline,
            workers=workers,
            isolate=settings.isolate,
            make_pool=make_pool,
            retrier=retrier,
            on_error=on_error,
            on_size=note_size,
        )

    return make_carrier
