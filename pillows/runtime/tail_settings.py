"""Everything that one tail is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from checkpoints import CheckpointStore, TailKey
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.delivery.batcher import BatchPolicy
from pillows.feed.base import Feed
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.progress.checkpointer import CheckpointPolicy
from pillows.transports.base import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class TailSettings:
    """Everything that a tail is made of.

    Attributes:
        key: the pillow and its source.
        pillow: the pipeline.
        make_feed: makes the feed; closed by the run.
        make_transports: makes the transports, in configured order; closed by the run.
        source_digest, pipeline_digest: of the configuration (see `ConfigDigest`).
        reload_recreated: a recreated source is read from its beginning instead of refused.
        batch: how large batches grow.
        max_in_flight: batches that are written at once, each with documents of its own.
        checkpoints: when checkpoints are saved.
        max_consecutive: so many dead letters in a row stop the tail.
        max_tries: how often the document of a dead letter is tried.
        max_dead_letters: so many are kept; one more stops the tail.
        write_timeouts_seconds: by a transport's name; see `FanOut`.
        store, dead_letters: durable state, shared with other tails.
        clock, observer: shared too.
    """

    key: TailKey
    pillow: Pillow
    make_feed: Callable[[], Feed]
    make_transports: Callable[[], Sequence[Transport]]
    source_digest: str
    pipeline_digest: str
    store: CheckpointStore
    dead_letters: DeadLetters
    clock: Clock
    observer: Observer
    reload_recreated: bool = False
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    max_in_flight: int = 1
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    max_consecutive: int = 1000
    max_tries: int = 5
    max_dead_letters: int = 100_000
    write_timeouts_seconds: Mapping[str, float] = field(default_factory=dict)
