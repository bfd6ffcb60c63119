"""One run of a tail: open, decide where to start, carry changes, drain, close.

The run creates all its parts, is their only user, and always closes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial

from gevent.event import Event
from gevent.lock import RLock

from checkpoints import Checkpoint
from pillows.delivery.batch_delivery import BatchDelivery
from pillows.delivery.fanout import FanOut
from pillows.delivery.items import Item, Outcome, id_of
from pillows.delivery.partitioned_pusher import PartitionedPusher
from pillows.delivery.pusher import Pusher
from pillows.errors import PillowError, RetryableError, StoppedError
from pillows.models import Batch, Change, ChangeBatch
from pillows.pillow import ItemPusher, Pipeline
from pillows.progress.checkpointer import Checkpointer, TailProgress, is_transactional
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.runtime.document_sender import DocumentSender
from pillows.runtime.housekeeping import Housekeeping, Job
from pillows.runtime.missed_purges import MissedPurges
from pillows.runtime.redelivery import Redelivery
from pillows.runtime.startup import TailStartup, identity_of
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_settings import Carrier, TailServices, TailSettings, make_dead_letters
from pillows.transports.base import Transport

#: Documents that are looked up in the source in one request.
LOOKUP_DOCUMENTS = 100

#: While it reads, the feed reports its lag at least this often. Held up by its target, or waiting for its
#: source, it does not: then the source is asked.
LAG_SECONDS = 30.0


class TailRun:
    """Runs a tail once.

    Args:
        settings: the tail's.
        services: the tail's.
        monitor: follows what happens.
        halt: ends the run, after the changes that were read are written and checkpointed.
        trust_equal: see `BatchDelivery`.

    Attributes:
        feed: the open feed.
        progress: the acknowledged changes; None until the run has started.
        retrier: retries while a server can't be reached.
    """

    def __init__(
        self,
        settings: TailSettings,
        services: TailServices,
        monitor: TailMonitor,
        *,
        halt: Event,
        trust_equal: bool = True,
    ) -> None:
        self.feed = services.make_feed()
        self.progress: TailProgress | None = None
        self.retrier = Retrier(
            settings.key,
            StopAwareWaiter(services.clock, halt, self._tick),
            services.observer,
            monitor.note_trouble,
            services.check_ownership,
        )
        self._settings = settings
        self._services = services
        self._monitor = monitor
        self._halt = halt
        self._trust_equal = trust_equal
        self._transports: Sequence[Transport] = ()
        self._pusher: Pusher[Item] | PartitionedPusher[Item] | None = None
        self._lock = RLock()  # writer and saver take turns at targets and checkpoint
        self._trouble: Exception | None = None
        self._writes_began: list[float] = []  # monotonic seconds of those in flight, oldest first
        self._housekeeping = Housekeeping(services.clock, halt, self._fail)
        self._save = Job(self._save_if_due)
        self._lag = Job(self._ask_for_lag)
        self._lag_asked_at = 0.0

    def run(self) -> None:
        """Carry changes until `halt` is set, then drain.

        Raises:
            CheckpointMoved: an operator edited the checkpoint: run again.
            SourceChangedError, FatalError: the tail cannot continue.
            StoppedError: a stop was requested while something was retried.
        """
        with self.open() as pipeline, ExitStack() as stack:
            purges = self._build_missed_purges()
            carrier = self.build_carrier(stack, pipeline)
            redelivery = Job(self._build_redelivery(pipeline.pusher, carrier).redeliver_all)
            housekeeping, key = self._housekeeping, self._settings.key
            beside = [redelivery, self._lag, purges.job]
            if (backfill := self._services.backfill) is not None:
                beside.append(Job(partial(backfill, self.make_sender(carrier))))
                housekeeping.start_soon(beside[-1], 0.0)
            stack.callback(housekeeping.kill, *beside)  # before the pusher takes no more
            stack.enter_context(
                self._services.dead_letters.watching(key, partial(housekeeping.start_soon, redelivery))
            )
            stack.enter_context(self._services.store.watching(key, self._note_edit))
            checkpoint = self._opened.checkpoint
            # Closed here: the garbage collector would close that of a killed run at any time, or at exit.
            batches = stack.enter_context(
                closing(self.feed.batches(checkpoint.seq, identity_of(checkpoint), self._halt))
            )
            with suppress(StoppedError):  # an error of the writer may be behind it: raised below
                # Without deletions there is nothing to be missed.
                keeps = self._settings.pillow.keep_deleted
                carrier.carry(batches if keeps else purges.follow(batches), self._note_batch)

    @contextmanager
    def open(self) -> Iterator[Pipeline]:
        """Open feed and targets, and drain and save at the end.

        Raises:
            As `run`.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self.feed))
            startup = TailStartup(self._settings, self._services, self.feed, self.retrier)
            self._transports, checkpoint = startup.run(stack)
            self.progress = TailProgress(self._build_checkpointer(checkpoint), self._transports, self.retrier)
            pusher = self._pusher = self._build_pusher()
            stack.callback(pusher.kill)
            stack.callback(self._housekeeping.kill)
            yield self._build_pipeline(pusher)
            pusher.finish()
            if self._trouble is not None:
                raise self._trouble
            self._save_now()

    def make_sender(self, carrier: Carrier) -> DocumentSender:
        """Return the sender of chosen documents, which are not from the feed. Call it inside `open`."""
        if self._pusher is None:
            raise RuntimeError("The run has not started.")
        return DocumentSender(
            source=self.feed,
            outcome=self._outcome_beside(self._pusher, carrier),
            push=self._pusher.push,
            flush=self._pusher.flush,
            retrier=self.retrier,
            raise_epoch=self._raise_epoch,
            save=self._save_now,
        )

    @property
    def unacknowledged(self) -> int:
        """Number of changes that were read and are not acknowledged yet."""
        return self.progress.watermark.changes if self.progress is not None else 0

    @property
    def save_error(self) -> str:
        """Why the checkpoint could not be saved last; empty if it was, or if the run has not started."""
        return self.progress.checkpointer.save_error if self.progress is not None else ""

    @property
    def oldest_arrived_at(self) -> float | None:
        """Monotonic seconds when the oldest of these changes arrived; None if there is none."""
        return self.progress.watermark.oldest_arrived_at if self.progress is not None else None

    @property
    def writing_seconds(self) -> float:
        """How long the oldest write in flight has taken so far."""
        return self._services.clock.monotonic() - self._writes_began[0] if self._writes_began else 0.0

    # --- parts

    @property
    def _opened(self) -> TailProgress:
        if self.progress is None:
            raise RuntimeError("The run has not started.")
        return self.progress

    @property
    def _is_transactional(self) -> bool:
        return is_transactional(self._transports)

    def _build_checkpointer(self, checkpoint: Checkpoint) -> Checkpointer:
        options, services = self._settings.checkpoints, self._services
        if self._is_transactional:  # its checkpoint counts: the copy in the store only follows the clock
            options = options.model_copy(update={"max_uncheckpointed": sys.maxsize})
        return Checkpointer(
            services.store,
            self._settings.key,
            checkpoint,
            options=options,
            clock=services.clock,
            observer=services.observer,
            dead_letters=services.dead_letters,
            copy_to_target=self._copy_to_target if self._is_transactional else None,
        )

    def _build_pipeline(self, pusher: ItemPusher) -> Pipeline:
        """Return the loop's parts."""
        return Pipeline(
            self._settings.pillow,
            trigger=self._settings.pillow.trigger(
                lambda change: self.retrier.retry_read("source", partial(self.feed.fetch, change)),
                lambda *what: self.retrier.retry_read("source", partial(self.feed.attachment, *what)),
            ),
            pusher=pusher,
            watermark=self._opened.watermark,
            observer=self._services.observer,
            tail=self._settings.key,
            clock=self._services.clock,
            with_text=self._settings.errors.exception_text,
        )

    def build_carrier(self, stack: ExitStack, pipeline: Pipeline) -> Carrier:
        """Return the carrier of changes: the pipeline itself, or worker processes, which the stack ends."""
        if self._services.make_carrier is None:
            return pipeline
        identity = identity_of(self._opened.checkpoint)
        return stack.enter_context(
            closing(self._services.make_carrier(pipeline, self.retrier, identity, self._halt.set))
        )

    def _outcome_beside(self, pusher: ItemPusher, carrier: Carrier) -> Callable[[Change], Outcome]:
        """Return the function that finds the outcome of a change that is not from the feed.

        A pipeline has counters, so each greenlet has its own pipeline.
        """
        return (self._build_pipeline(pusher) if isinstance(carrier, Pipeline) else carrier).outcome

    def _build_redelivery(self, pusher: ItemPusher, carrier: Carrier) -> Redelivery:
        return Redelivery(
            self._settings.key,
            dead_letters=self._services.dead_letters,
            source=self.feed,
            outcome=self._outcome_beside(pusher, carrier),
            push=pusher.push,
            waiter=self.retrier.waiter,
        )

    def _build_missed_purges(self) -> MissedPurges:
        return MissedPurges(
            source=self.feed,
            make_transports=self._services.make_transports,
            retrier=self.retrier,
            options=self._settings.missed_purges,
            start=lambda job: self._housekeeping.start_soon(job, 0.0),
            note=self._monitor.note_doubt,
            is_ours=self._services.is_ours,
            is_part=self._settings.is_part,
        )

    def _build_pusher(self) -> Pusher[Item] | PartitionedPusher[Item]:
        settings, services = self._settings, self._services
        delivery = BatchDelivery(
            settings.pillow.transform,
            fanout=FanOut(
                self._transports,
                self.retrier,
                timeouts_seconds=settings.write_timeouts_seconds,
                max_parallel=len(self._transports) * settings.batch.max_in_flight,
            ),
            progress=self._opened,
            dead_letters=make_dead_letters(settings, services),
            source=self.feed,
            retrier=self.retrier,
            lock=self._lock,
            trust_equal=self._trust_equal,
        )

        def build() -> Pusher[Item]:
            return Pusher(
                partial(self._write, delivery),
                settings.batch,
                services.clock,
                tick=self._tick,
                on_error=self._halt.set,
                on_take=lambda documents, size_bytes: services.observer.queue(
                    settings.key, documents=documents, size_bytes=size_bytes
                ),
            )

        in_flight = settings.batch.max_in_flight
        return build() if in_flight == 1 else PartitionedPusher(build, in_flight, id_of)

    def _note_batch(self, batch: ChangeBatch) -> None:
        self._monitor.note_batch(batch, self.feed.trouble, self.feed.last_byte_at)
        self._ask_for_old_lag()

    def _tick(self) -> None:
        self._monitor.tick()
        self._ask_for_old_lag()

    def _ask_for_old_lag(self) -> None:
        """Ask the source for the lag while the feed does not report it."""
        known_at = max(self._monitor.pending_at, self._lag_asked_at)
        if self._monitor.ticked_at - known_at >= LAG_SECONDS and self.progress is not None:
            self._lag_asked_at = self._monitor.ticked_at
            self._housekeeping.start_soon(self._lag, 0.0)

    # --- writing

    def _write(self, delivery: BatchDelivery, items: Sequence[Item]) -> None:
        """Write a batch, and handle the resulting progress of the tail."""
        self._monitor.tick()
        began = self._services.clock.monotonic()
        self._writes_began.append(began)
        try:
            # A single writer keeps the lock: the saver writes into a transactional target, too.
            with self._lock if self._settings.batch.max_in_flight == 1 else nullcontext():
                move = delivery.write(items).move
                with self._lock:
                    if move.caught_up and not self._opened.checkpoint.pass_done:
                        self._finish_pass()
            self._monitor.note_trouble("copy", "")  # the rows brought the checkpoint along
            self._monitor.note_move(move)
            self._note_save()
            seconds = self._opened.checkpointer.seconds_to_save()
            if seconds is not None:  # no later batch may come to save it
                self._housekeeping.start_soon(self._save, seconds)
        finally:
            self._writes_began.remove(began)

    def _finish_pass(self) -> None:
        """End the pass: sweep the rows that it did not write again, since their documents no longer exist.

        Older rows of documents with a dead letter stay until these are written or deleted. A dead letter may
        be older than the pass and its document deleted, so the source is asked. If rows are kept after their
        documents (`keep_deleted`, `keep_departed`), nothing is swept: a pass cannot tell such rows from stale
        ones.
        """
        pillow, tail, progress = self._settings.pillow, self._settings.key, self._opened
        epoch = 0 if pillow.keep_departed or pillow.keep_deleted else progress.checkpoint.pass_epoch
        for transport in self._transports:
            kept = self._find_in_source(self._services.dead_letters.ids(tail, transport.name))
            removed = self.retrier.retry_write(transport.name, partial(transport.finish_pass, epoch, kept))
            details = {"transport": transport.name, "epoch": epoch, "removed": removed}
            self._services.observer.notice(tail, event="pass.completed", details=details)
        progress.update(pass_done=True)
        progress.checkpointer.copy()

    def _find_in_source(self, ids: Collection[str]) -> set[str]:
        """Return the given ids that still exist in the source."""
        asked = sorted(ids)
        found: set[str] = set()
        for begin in range(0, len(asked), LOOKUP_DOCUMENTS):
            look = partial(self.feed.leaves, asked[begin : begin + LOOKUP_DOCUMENTS])
            found |= self.retrier.retry_read("source", look).keys()
        return found

    # --- jobs

    def _save_if_due(self) -> float | None:
        with self._lock:
            self._opened.checkpointer.save_if_due()
        self._note_save()
        return self._opened.checkpointer.seconds_to_save()

    def _save_now(self) -> None:
        with self._lock:
            self._opened.checkpointer.save()

    def _raise_epoch(self) -> None:
        with self._lock:
            self._opened.raise_epoch()

    def _note_edit(self) -> None:
        self._opened.checkpointer.note_edit()
        self._housekeeping.start_soon(self._save, 0.0)

    def _note_save(self) -> None:
        error = self.save_error
        self._monitor.note_trouble("checkpoint", f"checkpoint: {error}" if error else "")

    def _copy_to_target(self, checkpoint: Checkpoint) -> bool:
        """Save a checkpoint in the transactional target without rows; return whether that worked."""
        batch = Batch(documents=(), epoch=checkpoint.epoch, checkpoint=checkpoint)
        try:
            self._transports[0].write(batch)
        except RetryableError as error:
            # The state directory still gets it. Until the next attempt the copy, which counts, is older:
            # after a crash a little more is processed again.
            details = {"error": str(error)}
            self._services.observer.warning(
                self._settings.key, event="checkpoint.not_copied", details=details
            )
            self._monitor.note_trouble("copy", f"{self._transports[0].name}: {error}")
            return False
        self._monitor.note_trouble("copy", "")
        return True

    def _ask_for_lag(self) -> None:
        unacknowledged = self.unacknowledged
        with suppress(PillowError):  # the feed meets it too, and reports it
            pending = self.feed.pending(self._opened.checkpoint.seq)
            if pending is not None:
                self._monitor.note_unread(max(0, pending - unacknowledged))

    def _fail(self, error: Exception) -> None:
        """End the run with an error of one of its jobs."""
        if not isinstance(error, StoppedError):  # what was due still is, at the next start
            self._trouble = self._trouble or error
            self._halt.set()
