"""Run one backfill: raise the epoch, list the ids, send the ranges.

The epoch is raised once, so that every document is written again, even if the target holds the same version.
Under the raised epoch, an older state of a document would replace a newer one from the former epoch. So
nothing is read until `overlap_seconds` have passed: by then every copy of the database has all changes that
the feed returned before. With a single copy there is no wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from daemon.backfill.backfill import Backfill, BackfillState, RangeState
from daemon.backfill.store import BackfillStore
from pillows.clock import Clock
from pillows.couch.errors import RejectedError, ThrottledError
from pillows.errors import AwayError, FatalError, PermanentError, PillowError, RetryableError, StoppedError
from pillows.feed.document_ids import DocumentIds, IdPage
from pillows.models import Change
from pillows.progress.lag import Rate
from pillows.retry.backoff import Backoff
from pillows.retry.cancellable import StopAwareWaiter

#: Most documents in flight. A change of the feed waits behind at most this many.
GROUP_DOCUMENTS = 100

#: Pause after a group, as a multiple of its duration: the feed's changes have priority.
PAUSE_SHARE = 0.25

#: Attempts to read a single document, and the wait between them.
MAX_TRIES = 3
RETRY_SECONDS = 2.0

T = TypeVar("T")


class BackfillSource(Struct, frozen=True, kw_only=True):
    """The source of a tail, for a backfill.

    Attributes:
        open_ids: returns a reader that lists ids; the caller closes it.
        overlap_seconds: longest lag between two copies of the database.
    """

    open_ids: Callable[[], DocumentIds]
    overlap_seconds: float


class Sender(Protocol):
    """Sends documents of a pillow; see `DocumentSender` for the methods."""

    @property
    def waiter(self) -> StopAwareWaiter:
        """Waits, until the pillow stops."""

    @property
    def raise_epoch(self) -> Callable[[], None]:
        """Raises the epoch."""

    @property
    def save(self) -> Callable[[], None]:
        """Makes what was written durable."""

    def read(self, ids: Sequence[str]) -> Sequence[Change]:
        """Return documents."""

    def write(self, changes: Sequence[Change]) -> None:
        """Write them."""

    def is_source_well(self) -> bool:
        """Return whether the source answers at all."""


class RangeFailedError(PillowError):
    """A document of a range can't be read."""


class Carrier:
    """Carries one backfill.

    Args:
        id: of the backfill.
        store: stores the backfill; read before each step, since an operator may cancel it.
        sender: of the run.
        source: the tail's source.
        clock: for times.
        is_over: returns whether to end, and leave the other ranges for later.

    Attributes:
        sent: documents of the current range that were sent.
        rate: documents sent.
    """

    def __init__(
        self,
        id: str,
        store: BackfillStore,
        sender: Sender,
        source: BackfillSource,
        clock: Clock,
        *,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.sent = 0
        self.rate = Rate(clock)
        self._id = id
        self._store = store
        self._sender = sender
        self._source = source
        self._clock = clock
        self._is_over = is_over

    def run(self) -> None:
        """Run the backfill until it has ended, or its time is over.

        Raises:
            OSError: its files can't be written.
            FatalError: the pillow's pipeline can't continue.
            StoppedError: the pillow stops.
        """
        self._change(Backfill.begin)
        self._raise_epoch()
        ids = self._source.open_ids()
        try:
            self._prepare(ids)
        except (FatalError, PermanentError, RetryableError) as error:
            reason = f"its documents can't be listed: {error}"
            self._change(lambda each: each.fail(reason, self._clock.wall()))
            return
        finally:
            ids.close()
        while self._is_running and (number := self._current.find_next()) is not None:
            self._send_range(number)
            if self._is_over() and self._current.find_next() is not None:
                return
        self._change(lambda each: each.end(self._clock.wall()))

    @property
    def _current(self) -> Backfill:
        found = self._store.get(self._id)
        if found is None:
            raise StoppedError
        return found

    @property
    def _is_running(self) -> bool:
        return self._current.state is BackfillState.RUNNING

    def _raise_epoch(self) -> None:
        """Raise the epoch, unless an earlier run did. If that fails, the pillow's run ends."""
        if self._current.raised_at is None:
            self._sender.raise_epoch()
            raised_at = self._clock.wall()
            self._change(lambda each: msgspec.structs.replace(each, raised_at=raised_at))

    def _prepare(self, ids: DocumentIds) -> None:
        """List the ids, and wait until every copy of the database has the changes from the former epoch."""
        while self._is_running and not self._current.listed:
            self._add_page(self._try_again(lambda: self._list_page(ids)))
        if self._is_running and self._try_again(ids.count_copies) != 1:
            raised_at = self._current.raised_at or 0.0
            left_seconds = raised_at + self._source.overlap_seconds - self._clock.wall()
            self._sender.waiter.wait(min(max(0.0, left_seconds), self._source.overlap_seconds))

    def _list_page(self, ids: DocumentIds) -> IdPage:
        backfill, selection = self._current, self._current.selection
        if selection.prefix is not None:
            return ids.list_prefix(selection.prefix, backfill.after)
        return ids.list_selected(selection.selector or {}, backfill.after)

    def _add_page(self, page: IdPage) -> None:
        backfill = self._current
        if page.ids:
            self._store.put_ids(backfill, len(backfill.ranges) + 1, page.ids)
        self._change(lambda each: each.add_range(len(page.ids), after=page.after, listed=page.after is None))

    def _send_range(self, number: int) -> None:
        self.sent = 0
        reason = ""
        try:
            ids = self._store.read_ids(self._current, number)
            for start in range(0, len(ids), GROUP_DOCUMENTS):
                if not self._is_running:
                    return
                self._send(ids[start : start + GROUP_DOCUMENTS])
        except RangeFailedError as error:
            reason = str(error)
        self._sender.save()  # its dead letters first: the range is not read again
        self.sent = 0
        if self._is_running:
            state = RangeState.FAILED if reason else RangeState.DONE
            self._change(lambda each: each.with_range(number, state, reason))

    def _send(self, ids: Sequence[str]) -> None:
        """Send documents; in smaller groups if they can't be read together."""
        began_at = self._clock.monotonic()
        changes = self._read(ids)
        if changes is None:
            middle = len(ids) // 2
            self._send(ids[:middle])
            self._send(ids[middle:])
            return
        self._sender.write(changes)
        self.sent += len(ids)
        self.rate.add(len(ids))
        self._sender.waiter.wait(PAUSE_SHARE * (self._clock.monotonic() - began_at))

    def _read(self, ids: Sequence[str]) -> Sequence[Change] | None:
        """Read documents; return None if they should be read in smaller groups.

        Raises:
            RangeFailedError: a single document can't be read.
        """
        backoff, tries = Backoff(), 0
        while True:
            failure: PillowError
            try:
                return self._sender.read(ids)
            except RetryableError as error:
                failure = error
                if isinstance(error, AwayError | ThrottledError) or not self._sender.is_source_well():
                    self._sender.waiter.wait(backoff.after(error))
                    continue
            except (FatalError, PermanentError) as error:
                failure = error
            if len(ids) > 1 and not isinstance(failure, FatalError):
                return None
            tries += 1
            if tries == MAX_TRIES or not isinstance(failure, RetryableError):
                raise RangeFailedError(f"{ids[0]!r} can't be read: {failure}") from failure
            self._sender.waiter.wait(RETRY_SECONDS)

    def _try_again(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it succeeds or the server rejects the request; return the result."""
        backoff = Backoff()
        while True:
            try:
                return attempt()
            except RejectedError:
                raise
            except RetryableError as error:
                if not self._is_running:
                    raise
                self._sender.waiter.wait(backoff.after(error))

    def _change(self, change: Callable[[Backfill], Backfill]) -> None:
        self._store.change(self._id, change)
