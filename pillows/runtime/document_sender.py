"""Send chosen documents, in their current state, through the pipeline of a run.

Beside the feed this is safe. An item that belongs to no position moves no checkpoint. Of two states of one
document in a batch only the newer is written, and a target refuses an older one by its write version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pillows.clock import Turn
from pillows.delivery.items import Item, Outcome
from pillows.errors import RetryableError
from pillows.feed.base import SourceLookup
from pillows.models import Change, ChangeBatch
from pillows.pillow import estimate_size_bytes
from pillows.progress.watermark import PendingRange
from pillows.retry.retrier import Retrier

#: Interval at which the acknowledgements are checked.
_STEP_SECONDS = 0.02


class DocumentSender:
    """Sends documents of one run.

    Args:
        source: reads them.
        outcome: runs filter, trigger and transform on a change.
        push: passes the outcome to the run's writer.
        flush: has the writer wait for no more.
        retrier: of the run.
        raise_epoch: raises the run's epoch, durably here and in every target.
        save: saves the run's checkpoint, and its dead letters before that.
    """

    def __init__(
        self,
        *,
        source: SourceLookup,
        outcome: Callable[[Change], Outcome],
        push: Callable[[Item, int], object],
        flush: Callable[[], None],
        retrier: Retrier,
        raise_epoch: Callable[[], None],
        save: Callable[[], None],
    ) -> None:
        self.raise_epoch = raise_epoch
        self.save = save
        self.waiter = retrier.waiter
        self._source = source
        self._outcome = outcome
        self._push = push
        self._flush = flush
        self._retrier = retrier

    def send(self, ids: Sequence[str]) -> None:
        """Read documents, retrying while the source is away, and write them.

        Raises:
            FatalError: the run can't continue.
            StoppedError: a stop was requested.
        """
        self.write(self._retrier.retry_write("source", lambda: self.read(ids)))

    def read(self, ids: Sequence[str]) -> Sequence[Change]:
        """Return the current state of documents; a missing one is deleted. A failure is not retried.

        Raises:
            PillowError: as `SourceLookup`.
        """
        return self._source.current(ids)

    def is_source_well(self) -> bool:
        """Return whether the source answers at all.

        Raises:
            FatalError: the source denies access, or is missing for good.
        """
        try:
            self._source.identify()
        except RetryableError:
            return False
        return True

    def write(self, changes: Sequence[Change]) -> None:
        """Carry changes, and return once every target has acknowledged them, or dead letters are stored.

        Raises:
            FatalError: the run can't continue.
            StoppedError: a stop was requested.
        """
        if not changes:
            return
        # A range that is not in the watermark moves nothing.
        pending_range = PendingRange(ChangeBatch(changes=changes, seq=None))
        turn = Turn()
        for change in changes:
            outcome = self._outcome(change)
            self._push((pending_range, outcome), estimate_size_bytes(change, outcome))
            turn.give_way()
        self._flush()
        while pending_range.waiting:
            self.waiter.wait(_STEP_SECONDS)
