"""The settings of one tail, and the services that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from checkpoints import ConfigDigest, TailKey
from pillows.clock import Clock
from pillows.dead_letters.dead_letter import ErrorOptions
from pillows.dead_letters.store import DeadLetters
from pillows.dead_letters.tail_dead_letters import TailDeadLetters
from pillows.delivery.batcher import BatchOptions
from pillows.delivery.items import Outcome
from pillows.feed.base import DatabaseIdentity, Feed
from pillows.models import Change, ChangeBatch
from pillows.observer import Observer
from pillows.pillow import Pillow, Pipeline
from pillows.progress.checkpointer import CheckpointOptions, Checkpoints
from pillows.retry.retrier import Retrier
from pillows.runtime.document_sender import DocumentSender
from pillows.runtime.missed_purges import MissedPurgesOptions
from pillows.transports.base import Transport


class TailSettings(Struct, frozen=True, kw_only=True):
    """The values that a tail runs with.

    Attributes:
        key: the pillow and its source.
        pillow: the pipeline.
        digest: of the configuration's source and pipeline; that of the outputs is known once they are open.
        reload_recreated: whether a recreated source is read from its beginning instead of refused.
        batch: the bounds of a batch.
        checkpoints: when checkpoints are saved.
        errors: the limits for documents that cannot be written.
        missed_purges: limits the automatic repair after missed purges.
        write_timeouts_seconds: transport name -> longest write; see `FanOut`.
        is_part: whether other tails write the other documents of the pillow; see `Transport.take_part`.
    """

    key: TailKey
    pillow: Pillow
    digest: ConfigDigest
    reload_recreated: bool = False
    batch: BatchOptions = field(default_factory=BatchOptions)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    errors: ErrorOptions = field(default_factory=ErrorOptions)
    missed_purges: MissedPurgesOptions = field(default_factory=MissedPurgesOptions)
    write_timeouts_seconds: Mapping[str, float] = field(default_factory=dict)
    is_part: bool = False


class Carrier(Protocol):
    """Carries changes from the feed to the pusher, as `Pipeline` does."""

    def carry(self, batches: Iterable[ChangeBatch], on_batch: Callable[[ChangeBatch], None]) -> None:
        """Carry changes until the feed ends; see `Pipeline.carry`."""

    def outcome(self, change: Change) -> Outcome:
        """Return the outcome of one change; see `Pipeline.outcome`."""


class ClosableCarrier(Carrier, Protocol):
    """A carrier with worker processes."""

    def close(self) -> None:
        """End them. May be called twice."""


#: Makes a carrier with worker processes for one run, given the pipeline for changes that they do not get, the
#: run's retrier, the identity of its database, and what ends the feed after an error.
MakeCarrier = Callable[[Pipeline, Retrier, DatabaseIdentity, Callable[[], None]], ClosableCarrier]


class TailServices(Struct, frozen=True, kw_only=True):
    """The services that a tail uses. The stores are shared with other tails, and closed by their owner.

    Attributes:
        make_feed: makes the feed; the run closes it.
        make_transports: makes the transports, in configured order; the run closes them.
        store: the checkpoints.
        dead_letters: the dead letters.
        clock: for every duration and wait.
        observer: receives everything that happens.
        make_carrier: makes the carrier with worker processes; None carries changes in this process.
        backfill: sends chosen documents for as long as the run lasts; see `DocumentSender`.
        check_ownership: raises RetryableError while another process may have taken the tail over: then no
            write begins.
        is_ours: whether a document belongs to this tail, where it is a part of a pillow.
    """

    make_feed: Callable[[], Feed]
    make_transports: Callable[[], Sequence[Transport]]
    store: Checkpoints
    dead_letters: DeadLetters
    clock: Clock
    observer: Observer
    make_carrier: MakeCarrier | None = None
    backfill: Callable[[DocumentSender], None] | None = None
    check_ownership: Callable[[], None] = lambda: None
    is_ours: Callable[[str], bool] = lambda _id: True


def make_dead_letters(settings: TailSettings, services: TailServices) -> TailDeadLetters:
    """Return the dead letters of a tail, for its writer."""
    return TailDeadLetters(
        tail=settings.key,
        store=services.dead_letters,
        options=settings.errors,
        config=settings.digest.pipeline,
        observer=services.observer,
    )
