"""A backfill: its documents, its ranges and its progress. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from checkpoints import TailKey

#: Version of the file.
FORMAT = 1


class BackfillState(StrEnum):
    """The state of a backfill."""

    RECEIVING = "receiving"  # its ids
    WAITING = "waiting"  # for the pillow to run, and for earlier backfills of it
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # all but some ranges are done, or its documents could not be listed
    CANCELLED = "cancelled"


#: The final states of a backfill.
ENDED = frozenset({BackfillState.DONE, BackfillState.FAILED, BackfillState.CANCELLED})

#: The states of an unfinished backfill.
READY = frozenset({BackfillState.RUNNING, BackfillState.WAITING})


class RangeState(StrEnum):
    """The state of a range."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The chosen documents. If no attribute is set, they are given by their ids.

    Attributes:
        prefix: all documents whose id begins with this text.
        selector: all documents that match this Mango selector.
    """

    prefix: str | None = None
    selector: dict[str, Any] | None = None

    @property
    def is_listed(self) -> bool:
        """Whether the source lists the ids."""
        return self.prefix is not None or self.selector is not None


class Range(msgspec.Struct, frozen=True):
    """A group of documents. They are sent in order; after a crash all of them are sent again.

    Attributes:
        documents: their number.
        state: its state.
        reason: why it failed; "" if it did not.
    """

    documents: int
    state: RangeState = RangeState.WAITING
    reason: str = ""


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill, as stored on disk. People count ranges from 1: range N is `ranges[N - 1]`.

    Attributes:
        id: names it.
        pillow, source: the tail.
        selection: the documents.
        state: its state.
        reason: why it failed; "" if it did not.
        created_at, ended_at: wall-clock seconds.
        listed: whether all ids are known.
        after: where the listing continues; see `IdPage`.
        ranges: the ranges that are known so far.
        raised_at: when the epoch was raised for it (wall-clock seconds); None before that.
    """

    id: str
    pillow: str
    source: str
    selection: Selection
    state: BackfillState
    created_at: float
    reason: str = ""
    ended_at: float | None = None
    listed: bool = False
    after: str | None = None
    ranges: tuple[Range, ...] = ()
    raised_at: float | None = None
    format: int = FORMAT

    @property
    def key(self) -> TailKey:
        """The tail."""
        return TailKey(self.pillow, self.source)

    @property
    def documents(self) -> int:
        """The number of known ids."""
        return sum(each.documents for each in self.ranges)

    def count(self, state: RangeState) -> int:
        """Return the number of documents in ranges of a state."""
        return sum(each.documents for each in self.ranges if each.state is state)

    def find_next(self) -> int | None:
        """Return the number of the first range that waits; None if none does."""
        waiting = (n for n, each in enumerate(self.ranges, 1) if each.state is RangeState.WAITING)
        return next(waiting, None)

    def with_range(self, number: int, state: RangeState, reason: str = "") -> Backfill:
        """Return the backfill with another state of a range."""
        ranges = list(self.ranges)
        ranges[number - 1] = Range(ranges[number - 1].documents, state, reason)
        return msgspec.structs.replace(self, ranges=tuple(ranges))

    def add_range(self, documents: int, *, after: str | None, listed: bool) -> Backfill:
        """Return the backfill with one more range; a range without documents is not added.

        Args:
            documents: their number.
            after: where the listing continues.
            listed: whether this was the last range.
        """
        added = (Range(documents),) if documents else ()
        return msgspec.structs.replace(self, ranges=self.ranges + added, after=after, listed=listed)

    def begin(self) -> Backfill:
        """Return the backfill as running; a cancelled one stays cancelled."""
        return self if self.state in ENDED else msgspec.structs.replace(self, state=BackfillState.RUNNING)

    def end(self, at: float) -> Backfill:
        """Return the backfill as ended after all its ranges; a cancelled one stays cancelled.

        Args:
            at: wall-clock seconds.
        """
        if self.state is not BackfillState.RUNNING:
            return self
        failed = sum(each.state is RangeState.FAILED for each in self.ranges)
        return (
            self.fail(f"{failed} of {len(self.ranges)} ranges failed", at)
            if failed
            else self.stop(BackfillState.DONE, at)
        )

    def fail(self, reason: str, at: float) -> Backfill:
        """Return the backfill as failed; a cancelled one stays cancelled.

        Args:
            reason: why.
            at: wall-clock seconds.
        """
        if self.state in ENDED:
            return self
        return msgspec.structs.replace(self.stop(BackfillState.FAILED, at), reason=reason)

    def stop(self, state: BackfillState, at: float) -> Backfill:
        """Return the backfill in a final state.

        Args:
            state: one of `ENDED`.
            at: wall-clock seconds.
        """
        return msgspec.structs.replace(self, state=state, ended_at=at)

    def try_again(self, number: int) -> Backfill:
        """Return the backfill with a range to send again, under a new epoch.

        With the same epoch, targets would refuse documents that they already have.
        """
        again = self.with_range(number, RangeState.WAITING)
        return msgspec.structs.replace(
            again, state=BackfillState.WAITING, reason="", ended_at=None, raised_at=None
        )
