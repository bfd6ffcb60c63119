"""Retry dead letters: the document's current state, through the ordinary path.

This is safe while the tail runs: by its write version, the target refuses older states, and of two
changes of one id in a batch only the newer one is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from checkpoints import StoreWriteError, TailKey
from pillows.dead_letters.dead_letter import LONGEST_RETRY_SECONDS, DeadLetter
from pillows.dead_letters.store import DeadLetters
from pillows.delivery.items import Item, Outcome
from pillows.delivery.stale_writes import confirm_regressed
from pillows.errors import PermanentError, RetryableError
from pillows.feed.base import SourceLookup
from pillows.models import Change, ChangeBatch
from pillows.pillow import estimate_size_bytes
from pillows.progress.watermark import PendingRange
from pillows.retry.cancellable import StopAwareWaiter

#: Shortest time between two searches for due dead letters.
DUE_SECONDS = 5.0

#: Seconds until a document that could not be read on its own is read again.
UNREADABLE_SECONDS = 60.0

#: Documents that are read at once; fewer where they are large.
GROUP_DOCUMENTS = 100


class Redelivery:
    """Redelivers the dead letters of one tail.

    Args:
        tail: the tail's key.
        dead_letters: the store.
        source: reads the documents.
        outcome: runs filter, trigger and transform on a change.
        push: passes the outcome to the writer, which clears the dead letter or stores it again.
        waiter: for waits.
    """

    def __init__(
        self,
        tail: TailKey,
        *,
        dead_letters: DeadLetters,
        source: SourceLookup,
        outcome: Callable[[Change], Outcome],
        push: Callable[[Item, int], object],
        waiter: StopAwareWaiter,
    ) -> None:
        self._group = GROUP_DOCUMENTS
        self._tail = tail
        self._dead_letters = dead_letters
        self._source = source
        self._outcome = outcome
        self._push = push
        self._waiter = waiter
        dead_letters.unclaim(tail)  # what an earlier run was retrying when it ended

    def redeliver_all(self) -> float | None:
        """Redeliver until nothing more is due.

        Returns:
            The seconds until something is due again; None if nothing ever is.

        Raises:
            FatalError: the tail cannot continue.
            StoppedError: a stop was requested while something was retried.
        """
        try:
            while self.once() and not self._waiter.stop.is_set():
                pass
        except StoreWriteError:  # nothing is lost: the next write to the store writes this, too
            self._dead_letters.unclaim(self._tail)
        seconds = self._dead_letters.seconds_to_due(self._tail)
        return None if seconds is None else max(DUE_SECONDS, seconds)

    def once(self) -> int:
        """Redeliver the due dead letters; return their number."""
        dead_letters = self._dead_letters.claim_due(self._tail, at_most=self._group)
        if not dead_letters:
            return 0
        newest = {
            dead_letter.id: dead_letter
            for dead_letter in sorted(dead_letters, key=lambda dead_letter: dead_letter.leaf_version)
        }
        try:
            changes = self._read(newest)
        except RetryableError:
            # Not an attempt: the source is away, which the tail itself reports, or one document cannot be
            # read. Smaller groups isolate that document, which then waits alone.
            self._dead_letters.postpone(
                dead_letters, DUE_SECONDS if len(dead_letters) > 1 else UNREADABLE_SECONDS
            )
            self._group = max(1, len(dead_letters) // 2)
            return 0
        except PermanentError:  # they are too large to be held together
            self._dead_letters.postpone(dead_letters, 0.0 if self._group > 1 else LONGEST_RETRY_SECONDS)
            self._group = max(1, self._group // 2)
            return len(dead_letters)
        self._group = min(GROUP_DOCUMENTS, 2 * self._group)
        self._note_versions(dead_letters, changes)
        for id, change in changes.items():
            self._redeliver(_known_as(change, newest[id]))
        return len(dead_letters)

    def _read(self, newest: Mapping[str, DeadLetter]) -> dict[str, Change]:
        """Read the current state of documents; omit those of which a lagging copy returned an older state."""
        changes = {change.id: change for change in self._source.current(list(newest))}
        older = {
            id: newest[id].leaf_version for id in newest if changes[id].leaf_version < newest[id].leaf_version
        }
        regressed = confirm_regressed(older, self._source, self._waiter)
        return {id: change for id, change in changes.items() if id not in older or id in regressed}

    def _note_versions(self, dead_letters: Sequence[DeadLetter], changes: Mapping[str, Change]) -> None:
        self._dead_letters.postpone(
            [dead_letter for dead_letter in dead_letters if dead_letter.id not in changes], DUE_SECONDS
        )
        for dead_letter in dead_letters:
            if (
                dead_letter.id in changes
                and 0 < changes[dead_letter.id].leaf_version < dead_letter.leaf_version
            ):
                self._dead_letters.lower_version(dead_letter, changes[dead_letter.id].leaf_version)

    def _redeliver(self, change: Change) -> None:
        outcome = self._outcome(change)
        if outcome is None:  # it has left the set, and what has left keeps its rows
            self._dead_letters.forget(self._tail, change.id)
            return
        # A range that is not in the watermark moves nothing.
        pending_range = PendingRange(ChangeBatch(changes=(change,), seq=None))
        self._push((pending_range, outcome), estimate_size_bytes(change, outcome))


def _known_as(change: Change, dead_letter: DeadLetter) -> Change:
    """Return a change; if the document no longer exists, a deletion of the dead letter's version."""
    if change.leaf_version:
        return change
    return Change(
        id=dead_letter.id, revs=(dead_letter.rev,), leaf_version=dead_letter.leaf_version, deleted=True
    )
