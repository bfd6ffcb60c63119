"""The acknowledged progress of a tail, and its epoch, in stores and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from checkpoints import Checkpoint
from pillows.progress.checkpointer import Checkpointer
from pillows.progress.watermark import PendingRange, Watermark, WatermarkMove
from pillows.retry.retrier import Retrier
from pillows.transports.base import Transport


class TailProgress:
    """Moves watermark and checkpoint together, and stores a new epoch everywhere.

    Args:
        checkpointer: the checkpoint.
        transports: the open targets.
        retrier: retries unreachable targets and stores.

    Attributes:
        watermark: the changes in flight.
        checkpointer: the checkpoint.
        is_transactional: whether the only target saves the checkpoint with the rows.
    """

    def __init__(self, checkpointer: Checkpointer, transports: Sequence[Transport], retrier: Retrier) -> None:
        self.watermark = Watermark()
        self.checkpointer = checkpointer
        self.is_transactional = is_transactional(transports)
        self._transports = transports
        self._retrier = retrier

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest acknowledged position; may not be saved yet."""
        return self.checkpointer.current

    def preview(self, acks: Mapping[PendingRange, int]) -> Checkpoint:
        """Return the checkpoint after these acknowledgements, without taking them."""
        return self.checkpointer.preview(self.watermark.peek(acks))

    def acknowledge(
        self, acks: Mapping[PendingRange, int], committed: Checkpoint | None = None
    ) -> WatermarkMove:
        """Take acknowledgements, and move the checkpoint; save it if that is due.

        Args:
            acks: range -> number of its changes.
            committed: the checkpoint that a transactional target saved with these changes.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
        """
        move = self.watermark.ack(acks)
        self.checkpointer.advance(move, committed)
        return move

    def update(self, **fields: Any) -> None:
        """Change fields of the checkpoint and save it; retry failed writes.

        Raises:
            CheckpointMoved: an operator edited the checkpoint.
            StoppedError: a stop was requested meanwhile.
        """
        self._retrier.retry_write("checkpoint", partial(self.checkpointer.update, **fields))

    def raise_epoch(self) -> None:
        """Raise the epoch by one, durably here and in every target."""
        self.update(epoch=self.checkpoint.epoch + 1)
        acquire(self._transports, self._retrier, self.checkpoint)


def acquire(transports: Sequence[Transport], retrier: Retrier, checkpoint: Checkpoint) -> None:
    """Store the epoch for all further writes in every target; retry unreachable ones.

    Raises:
        FatalError: a target cannot store it.
        StoppedError: a stop was requested meanwhile.
    """
    for transport in transports:
        retrier.retry_write(transport.name, partial(transport.acquire, checkpoint))


def is_transactional(transports: Sequence[Transport]) -> bool:
    """Return whether the only target saves rows and checkpoint in one transaction."""
    return len(transports) == 1 and transports[0].transactional
