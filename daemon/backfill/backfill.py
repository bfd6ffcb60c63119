"""A backfill: which documents, in which ranges, and how far it is. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from checkpoints import TailKey

#: Version of the file.
FORMAT = 1


class BackfillState(StrEnum):
    """What a backfill is doing."""

    RECEIVING = "receiving"  # its ids
    WAITING = "waiting"  # for the pillow to run, and for earlier backfills of it
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # all but some ranges are done, or its documents could not be listed
    CANCELLED = "cancelled"


#: The states that a backfill does not leave by itself.
ENDED = frozenset({BackfillState.DONE, BackfillState.FAILED, BackfillState.CANCELLED})

#: The states of a backfill that is to be carried on.
READY = frozenset({BackfillState.RUNNING, BackfillState.WAITING})


class RangeState(StrEnum):
    """What has become of a range."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """The chosen documents: those with given ids unless one of the attributes is set.

    Attributes:
        prefix: all whose id begins so.
        selector: all that match; a Mango selector.
    """

    prefix: str | None = None
    selector: dict[str, Any] | None = None

    @property
    def is_listed(self) -> bool:
        """Whether the source lists the ids."""
        return self.prefix is not None or self.selector is not None


class Range(msgspec.Struct, frozen=True):
    """Some documents that are sent one after the other, and again from the first after a crash.

    Attributes:
        documents: how many.
        state: what has become of it.
        reason: why it failed; "" unless it did.
    """

    documents: int
    state: RangeState = RangeState.WAITING
    reason: str = ""


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill as it is on disk. People count ranges from 1: range N is `ranges[N - 1]`.

    Attributes:
        id: names it.
        pillow, source: the tail.
        selection: which documents.
        state: what it is doing.
        reason: why it failed; "" unless it did.
        created_at, ended_at: wall-clock seconds.
        listed: whether all ids are known.
        after: where the listing goes on; see `IdPage`.
        ranges: the ids that are known.
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
        """How many ids are known."""
        return sum(each.documents for each in self.ranges)

    def count(self, state: RangeState) -> int:
        """Return how many documents are in ranges of a state."""
        return sum(each.documents for each in self.ranges if each.state is state)

    def find_next(self) -> int | None:
        """Return the number of the first range that waits; None if none does."""
        waiting = (n for n, each in enumerate(self.ranges, 1) if each.state is RangeState.WAITING)
        return next(waiting, None)

    def with_range(self, number: int, state: RangeState, reason: str = "") -> Backfill:
        """Return it with another state of a range."""
        ranges = list(self.ranges)
        ranges[number - 1] = Range(ranges[number - 1].documents, state, reason)
        return msgspec.structs.replace(self, ranges=tuple(ranges))

    def add_range(self, documents: int, *, after: str | None, listed: bool) -> Backfill:
        """Return it with one more range; with none if there are no documents in it.

        Args:
            documents: how many.
            after: where the listing goes on.
            listed: whether this was the last one.
        """
        added = (Range(documents),) if documents else ()
        return msgspec.structs.replace(self, ranges=self.ranges + added, after=after, listed=listed)

    def begin(self) -> Backfill:
        """Return it as it runs; one that was cancelled stays so."""
        return self if self.state in ENDED else msgspec.structs.replace(self, state=BackfillState.RUNNING)

    def end(self, at: float) -> Backfill:
        """Return it as it has ended, after all its ranges; one that was cancelled stays so.

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
        """Return it as failed; one that was cancelled stays so.

        Args:
            reason: why.
            at: wall-clock seconds.
        """
        if self.state in ENDED:
            return self
        return msgspec.structs.replace(self.stop(BackfillState.FAILED, at), reason=reason)

    def stop(self, state: BackfillState, at: float) -> Backfill:
        """Return it in a state that it does not leave by itself.

        Args:
            state: one of `ENDED`.
            at: wall-clock seconds.
        """
        return msgspec.structs.replace(self, state=state, ended_at=at)

    def try_again(self, number: int) -> Backfill:
        """Return it with a range that waits again, under an epoch that is to be raised again.

        Otherwise targets would refuse as equal what they took the first time.
        """
        again = self.with_range(number, RangeState.WAITING)
        return msgspec.structs.replace(
            again, state=BackfillState.WAITING, reason="", ended_at=None, raised_at=None
        )
