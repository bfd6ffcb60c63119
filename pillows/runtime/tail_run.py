"""One run of a tail: open, decide where to start, carry changes, drain, close.

Every part is made here, used by this run alone, and closed here, whatever happens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from gevent.lock import RLock

from checkpoints import Checkpoint
from pillows.dead_letters.dead_letter import DeadLetterPolicy
from pillows.delivery.batch_writer import BatchWriter
from pillows.delivery.fanout import FanOut
from pillows.delivery.items import Item, id_of
from pillows.delivery.partitioned_pusher import PartitionedPusher
from pillows.delivery.pusher import Pusher
from pillows.errors import RetryableError, StoppedError
from pillows.models import Batch, ChangeBatch
from pillows.pillow import Pipeline
from pillows.progress.checkpointer import Checkpointer, CheckpointPolicy
from pillows.progress.watermark import Watermark, WatermarkMove
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.runtime.redelivery import Redelivery
from pillows.runtime.startup import TailStartup, claim, identity_of, is_transactional
from pillows.runtime.tail_settings import TailSettings
from pillows.transports.base import Transport

#: So many documents are looked up in the source in one request.
ASKED_AT_ONCE = 100


class TailRun:
    """Runs a plan once.

    Args:
        plan: what to run.
        halt: ends the run: what was read is written and checkpointed first.
        tick: called as a sign of life.
        on_retry: called with where and why before something is tried again.
        on_batch: called with every batch of the feed.
        on_advance: called whenever the watermark has moved.

    Attributes:
        feed: the open feed.
        keeper: the checkpoint; None until the run has begun.
    """

    #: Whether a document that a target has in the same version is taken for a replay.
    _believes_equal: ClassVar[bool] = True

    def __init__(
        self,
        plan: TailSettings,
        *,
        halt: Event,
        tick: Callable[[], None],
        on_retry: Callable[[str, str], None],
        on_batch: Callable[[ChangeBatch], None],
        on_advance: Callable[[WatermarkMove], None],
    ) -> None:
        self.feed = plan.make_feed()
        self.keeper: Checkpointer | None = None
        self._plan = plan
        self._halt = halt
        self._observer = plan.observer
        self._tick = tick
        self._on_batch = on_batch
        self._on_advance = on_advance
        self._transports: Sequence[Transport] = ()
        self._turn = RLock()  # the writer and the saver take turns at targets and checkpoint
        self._trouble: Exception | None = None
        self._retrier = Retrier(plan.key, StopAwareWaiter(plan.clock, halt, tick), plan.observer, on_retry)

    def execute(self) -> None:
        """Runs until `halt` is set, then drains.

        Raises:
            CheckpointMoved: an operator edited the checkpoint: run again.
            SourceChangedError, FatalError: it can't go on.
            StoppedError: it was halted while something was tried again.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self.feed))
            beginning = TailStartup(self._plan, self.feed, self._retrier)
            self._transports, checkpoint = beginning.begin(stack)
            self.keeper = self._keep(checkpoint)
            self._carry(stack, self.keeper)

    def _keep(self, checkpoint: Checkpoint) -> Checkpointer:
        return Checkpointer(
            self._plan.store,
            self._plan.key,
            checkpoint,
            policy=self._policy,
            clock=self._plan.clock,
            observer=self._observer,
            publish=self._publish,
            settle=self._plan.dead_letters.sync,
            unsettled=partial(self._plan.dead_letters.unsynced, self._plan.key),
        )

    # --- carrying

    def _carry(self, stack: ExitStack, keeper: Checkpointer) -> None:
        watermark = Watermark()
        pusher = self._pusher(keeper, watermark)
        stack.callback(pusher.kill)
        saver = gevent.spawn(self._save_regularly, keeper)
        stack.callback(saver.kill)
        redelivery = gevent.spawn(self._redeliver, self._pipeline(pusher, watermark), pusher)
        stack.callback(redelivery.kill)
        identity = identity_of(keeper.current)
        # Closed here: of a killed run the garbage collector would come for it at any time, or at exit.
        batches = stack.enter_context(closing(self.feed.batches(keeper.current.seq, identity, self._halt)))
        with suppress(StoppedError):  # an error of the writer may be behind it: raised below
            self._pipeline(pusher, watermark).carry(batches, self._on_batch)
        redelivery.kill()  # before the pusher takes no more
        pusher.finish()
        if self._trouble is not None:
            raise self._trouble
        with self._turn:
            keeper.save()

    def _pipeline(self, pusher: PartitionedPusher[Item], watermark: Watermark) -> Pipeline:
        """The loop's parts; each greenlet has its own, since a pipeline remembers its stage."""
        return Pipeline(
            self._plan.pillow,
            trigger=self._plan.pillow.trigger(
                lambda change: self._retrier.asks("source").until_done(partial(self.feed.fetch, change)),
                lambda *what: self._retrier.asks("source").until_done(partial(self.feed.attachment, *what)),
            ),
            pusher=pusher,
            watermark=watermark,
            observer=self._observer,
            tail=self._plan.key,
        )

    def _redeliver(self, pipeline: Pipeline, pusher: PartitionedPusher[Item]) -> None:
        redelivery = Redelivery(
            self._plan.key,
            dead_letters=self._plan.dead_letters,
            source=self.feed,
            outcome=pipeline.outcome_or_dead_letter,
            push=pusher.push,
            waiter=self._retrier.waiter,
        )
        try:
            redelivery.run(self._halt)
        except StoppedError:
            return  # what was due still is, at the next start
        except Exception as error:  # noqa: BLE001 - raised by the run itself, which this ends
            self._trouble = self._trouble or error
            self._halt.set()

    def _pusher(self, keeper: Checkpointer, watermark: Watermark) -> PartitionedPusher[Item]:
        writer = BatchWriter(
            self._plan.key,
            fanout=FanOut(
                self._transports,
                self._retrier,
                timeouts_seconds=self._plan.write_timeouts_seconds,
                max_parallel=len(self._transports) * self._plan.max_in_flight,
            ),
            source=self.feed,
            dead_letters=self._plan.dead_letters,
            transform=self._plan.pillow.transform,
            watermark=watermark,
            keeper=keeper,
            retrier=self._retrier,
            observer=self._observer,
            clock=self._plan.clock,
            turn=self._turn,
            transactional=is_transactional(self._transports),
            raise_epoch=self._raise_epoch,
            believes_equal=self._believes_equal,
            on_advance=self._advanced,
            max_consecutive=self._plan.max_consecutive,
            dead_letter_policy=DeadLetterPolicy(
                max_dead_letters=self._plan.max_dead_letters,
                max_tries=self._plan.max_tries,
                config=self._plan.pipeline_digest,
            ),
        )

        def write(items: Sequence[Item]) -> None:
            self._tick()
            # A single lane keeps the turn: the saver writes into a transactional target, too.
            with self._turn if self._plan.max_in_flight == 1 else nullcontext():
                writer.write(items)

        def lane() -> Pusher[Item]:
            return Pusher(write, self._plan.batch, self._plan.clock, tick=self._tick, on_error=self._halt.set)

        return PartitionedPusher(lane, self._plan.max_in_flight, id_of)

    def _advanced(self, advance: WatermarkMove) -> None:
        if self.keeper is not None and advance.caught_up and not self.keeper.current.pass_done:
            self._complete_pass(self.keeper)
        self._on_advance(advance)

    def _complete_pass(self, keeper: Checkpointer) -> None:
        """The pass has seen everything: what it did not write again is gone from the source.

        But for the documents of dead letters, whose older rows stay until they are mended or deleted. A
        dead letter may be older than the pass, of a document that is gone, so the source is asked.
        Where rows outlive their documents nothing is swept: a pass cannot tell those from phantoms.
        """
        kept = self._plan.pillow.keep_departed or self._plan.pillow.keep_deleted
        epoch = 0 if kept else keeper.current.pass_epoch
        for transport in self._transports:
            tries = self._retrier.tries(transport.name)
            older = self._still_there(self._plan.dead_letters.ids(self._plan.key, transport.name))
            removed = tries.until_done(partial(transport.finish_pass, epoch, older))
            self._observer.notice(
                self._plan.key,
                event="pass.completed",
                details={"transport": transport.name, "epoch": epoch, "removed": removed},
            )
        self._change(keeper, pass_done=True)
        self._publish(keeper.current)

    def _still_there(self, ids: Collection[str]) -> set[str]:
        """Those of the documents that the source knows."""
        asked = sorted(ids)
        found: set[str] = set()
        for begin in range(0, len(asked), ASKED_AT_ONCE):
            look = partial(self.feed.leaves, asked[begin : begin + ASKED_AT_ONCE])
            found |= self._retrier.asks("source").until_done(look).keys()
        return found

    def _raise_epoch(self) -> None:
        if self.keeper is not None:
            self._change(self.keeper, epoch=self.keeper.current.epoch + 1)
            claim(self._transports, self._retrier, self.keeper.current)

    # --- saving

    def _change(self, keeper: Checkpointer, **fields: Any) -> None:
        self._retrier.tries("checkpoint").until_done(partial(keeper.change, **fields))

    @property
    def _policy(self) -> CheckpointPolicy:
        """A transactional target has the checkpoint that counts: the copy only follows the clock."""
        if not is_transactional(self._transports):
            return self._plan.checkpoints
        return replace(self._plan.checkpoints, max_uncheckpointed=sys.maxsize)

    def _publish(self, checkpoint: Checkpoint) -> bool:
        """Moves the copy in a transactional target too, though no rows go with it; whether that is done."""
        if not is_transactional(self._transports):
            return True
        batch = Batch(documents=(), epoch=checkpoint.epoch, checkpoint=checkpoint)
        try:
            self._transports[0].write(batch)
        except RetryableError as error:
            # The state directory still gets it. Until the next try the copy, which counts, is older: after a
            # crash a little more is read again.
            self._observer.warning(
                self._plan.key, event="checkpoint.not_copied", details={"error": str(error)}
            )
            return False
        return True

    def _save_regularly(self, keeper: Checkpointer) -> None:
        while not self._plan.clock.wait(self._halt, self._plan.checkpoints.interval_seconds):
            try:
                with self._turn:
                    keeper.save_if_due()
            except Exception as error:  # noqa: BLE001 - raised by the run itself, which this ends
                self._trouble = error
                self._halt.set()
