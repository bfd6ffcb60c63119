"""The first turn of a database: one request, one write and one checkpoint, in one greenlet.

Of ten thousand databases most are small, so what an ordinary run of a tail prepares for the changes to come
(a reader and a writer beside it, jobs, a start that asks source and targets) takes longer than the changes
themselves. Everything that makes sure that nothing is lost is the same: the pipeline, the delivery of a
batch, watermark and checkpoint. What does not fit into one page is left to ordinary turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Checkpoint, ConfigDigest, Seq
from pillows.databases.turns.turn import (
    STALLED_SECONDS,
    Turn,
    TurnEnd,
    TurnMonitor,
    TurnResult,
    classify,
    not_saved,
)
from pillows.databases.turns.turn_feed import TurnFeed
from pillows.delivery.batch_delivery import BatchDelivery
from pillows.delivery.fanout import FanOut
from pillows.delivery.items import Item
from pillows.errors import RetryableError, StoppedError
from pillows.models import Batch, ChangeBatch
from pillows.pillow import Pipeline
from pillows.progress.checkpointer import Checkpointer, TailProgress, acquire, is_transactional
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.runtime import start_decision
from pillows.runtime.startup import outputs_digest
from pillows.runtime.tail_settings import TailServices, TailSettings, make_dead_letters
from pillows.transports.base import Transport


class FirstTurn:
    """A turn, which begins now, of a database of which neither checkpoint nor rows exist.

    Args:
        settings: of the database's tail.
        services: of that tail.
        feed: its feed, which the turn closes. It knows the database's identity.
        make_turn: returns an ordinary turn, for a database whose first page is too large for this one.

    Attributes:
        began_at: monotonic seconds.
    """

    def __init__(
        self, settings: TailSettings, services: TailServices, feed: TurnFeed, make_turn: Callable[[], Turn]
    ) -> None:
        self.began_at = services.clock.monotonic()
        self._settings = settings
        self._services = services
        self._feed = feed
        self._make_turn = make_turn
        self._halt = Event()
        self._monitor = TurnMonitor(settings.key, services.clock, self._halt)
        self._retrier = Retrier(
            settings.key,
            StopAwareWaiter(services.clock, self._halt, self._monitor.tick),
            services.observer,
            self._monitor.note_trouble,
            services.check_ownership,
        )
        self._reader: Any = None  # the greenlet that waits for the source
        self._is_read = False
        self._on_head: Callable[[], None] = lambda: None
        self._turn: Turn | None = None

    def run(self) -> TurnResult:
        """Carry the first page of changes, and save the checkpoint."""
        try:
            with closing(self._feed):
                batch = self._read()
                if batch is not None:
                    return self._carry(batch)
        except Exception as error:  # noqa: BLE001 - one database must not end the others
            return self._find_failure() or classify(error)
        turn = self._turn = self._make_turn()
        turn.on_head(self._on_head)
        if self._halt.is_set():
            turn.stop()
        return turn.run()

    def stop(self) -> None:
        """Let the turn end soon: what was read is written."""
        self._halt.set()
        if self._turn is not None:
            self._turn.stop()
        gevent.get_hub().loop.run_callback(self._end_reading)

    def on_head(self, callback: Callable[[], None]) -> None:
        """Call when everything was read that there was; what was read may still have to be written."""
        self._on_head = callback

    @property
    def trouble(self) -> str:
        """Why a target is retried; empty if none is."""
        return self._monitor.reason if self._turn is None else self._turn.trouble

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte from the source; None before the first."""
        return (self._turn or self._feed).last_byte_at

    @property
    def is_reading(self) -> bool:
        """Whether it reads: its source is not silent, and the page is not read yet."""
        if self._turn is not None:
            return self._turn.is_reading
        silent_seconds = self._services.clock.monotonic() - (self.last_byte_at or self.began_at)
        return not self._is_read and silent_seconds < STALLED_SECONDS

    def _read(self) -> ChangeBatch | None:
        """Return the first page; None if it is too large.

        Raises:
            StoppedError: a stop was requested.
        """
        if self._halt.is_set():
            raise StoppedError
        self._reader = gevent.getcurrent()
        try:
            batch = self._feed.read_first()
        finally:
            self._reader = None
        if batch is not None:
            self._is_read = True
            self._on_head()
        return batch

    def _end_reading(self) -> None:
        """End a wait for the source. Called in the hub, so the turn waits, and for the source if it reads."""
        if self._reader is not None:
            self._reader.throw(StoppedError())

    def _carry(self, batch: ChangeBatch) -> TurnResult:
        settings, services, retrier = self._settings, self._services, self._retrier
        transports = services.make_transports()
        checkpoint = self._make_checkpoint(transports)
        # Should the database be gone after a crash, it must be known that there may be rows of it. A
        # transactional target does not save the checkpoint with rows that are written beside a dead letter.
        retrier.retry_write("checkpoint", partial(services.store.save, settings.key, checkpoint))
        acquire(transports, retrier, checkpoint)
        progress = TailProgress(self._build_checkpointer(transports, checkpoint), transports, retrier)
        items = _Items()
        Pipeline(
            settings.pillow,
            trigger=settings.pillow.trigger(
                lambda change: retrier.retry_read("source", partial(self._feed.fetch, change)),
                lambda *what: retrier.retry_read("source", partial(self._feed.attachment, *what)),
            ),
            pusher=items,
            watermark=progress.watermark,
            observer=services.observer,
            tail=settings.key,
            clock=services.clock,
            with_text=settings.errors.exception_text,
        ).carry([batch], lambda _: self._monitor.tick())
        self._build_delivery(transports, progress).write(items.taken)
        progress.checkpointer.save()
        if (failure := self._find_failure()) is not None:
            return failure
        if progress.checkpointer.save_error:
            return not_saved(progress.checkpointer.save_error)
        # A pass that has more to do than to reach the head is ended by an ordinary turn.
        is_done = batch.caught_up and progress.checkpoint.pass_done
        return TurnResult(end=TurnEnd.HEAD if is_done else TurnEnd.MORE)

    def _find_failure(self) -> TurnResult | None:
        failure = self._monitor.failure
        return TurnResult(end=TurnEnd.BACK_OFF, reason=failure) if failure else None

    def _make_checkpoint(self, transports: Sequence[Transport]) -> Checkpoint:
        """Return the checkpoint that the turn begins with."""
        settings, services = self._settings, self._services
        facts = start_decision.StartupFacts(
            key=settings.key,
            stored=None,
            target_states={each.name: each.open() for each in transports},
            transactional=is_transactional(transports),
            digest=ConfigDigest(
                source=settings.digest.source,
                outputs=outputs_digest(transports),
                pipeline=settings.digest.pipeline,
            ),
            now=services.clock.wall(),
        )
        identity = self._feed.identify()
        return replace(
            start_decision.make_first_checkpoint(facts, Seq.BEGINNING),
            instance_start_time=identity.instance_start_time,
            server_uuid=identity.server_uuid,
            purge_seq=identity.purge_seq,
            saved_at=facts.now,
        )

    def _build_checkpointer(self, transports: Sequence[Transport], checkpoint: Checkpoint) -> Checkpointer:
        services = self._services

        def copy(checkpoint: Checkpoint) -> bool:
            try:
                transports[0].write(Batch(documents=(), epoch=checkpoint.epoch, checkpoint=checkpoint))
            except RetryableError:
                return False  # the state directory gets it: after a crash, the page is read again
            return True

        return Checkpointer(
            services.store,
            self._settings.key,
            checkpoint,
            options=self._settings.checkpoints,
            clock=services.clock,
            observer=services.observer,
            dead_letters=services.dead_letters,
            copy_to_target=copy if is_transactional(transports) else None,
        )

    def _build_delivery(self, transports: Sequence[Transport], progress: TailProgress) -> BatchDelivery:
        settings, services = self._settings, self._services
        return BatchDelivery(
            settings.pillow.transform,
            fanout=FanOut(transports, self._retrier, timeouts_seconds=settings.write_timeouts_seconds),
            progress=progress,
            dead_letters=make_dead_letters(settings, services),
            source=self._feed,
            retrier=self._retrier,
            lock=nullcontext(),  # there is no other greenlet
        )


class _Items:
    """Takes the outcomes of one page.

    Attributes:
        taken: the outcomes.
    """

    def __init__(self) -> None:
        self.taken: list[Item] = []

    def push(self, item: Item, size_bytes: int) -> bool:  # noqa: ARG002 - one page is bounded
        """Take an outcome; it never waits."""
        self.taken.append(item)
        return False

    def expect(self, *, more: bool) -> None:
        """Do nothing: everything is written together."""
