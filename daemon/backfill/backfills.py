"""Start, list, retry and cancel backfills. Each tail runs one at a time."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import gevent
import msgspec
import structlog
from gevent.event import Event

from checkpoints import StoreError, TailKey
from daemon.backfill.backfill import ENDED, READY, Backfill, BackfillState, RangeState, Selection
from daemon.backfill.carrier import BackfillSource, Carrier, Sender
from daemon.backfill.store import BackfillStore
from daemon.errors import ConflictError, InvalidRequestError, NotFoundError
from pillows.clock import Clock
from pillows.errors import PillowError

#: Most waiting or running backfills of a tail, and most ended ones that are kept.
MAX_WAITING = 10
MAX_ENDED = 10

#: Most failed ranges that are listed.
MAX_NAMED = 100

#: Wait after a file could not be written.
_DISK_SECONDS = 60.0

_log = structlog.get_logger("pillowd.operator")


class Backfills:
    """The backfills of all tails.

    Args:
        store: stores the backfills.
        clock: for times.

    Attributes:
        run_here: runs the backfills of a tail in this process; None if the daemon's tails run them.
    """

    def __init__(self, store: BackfillStore, clock: Clock) -> None:
        self.run_here: Callable[[TailKey], None] | None = None
        self._store = store
        self._clock = clock
        self._carriers: dict[str, Carrier] = {}
        self._news: dict[TailKey, Event] = {}
        self._here: dict[TailKey, gevent.Greenlet[..., None]] = {}

    # --- what an operator asks for

    def start(
        self, key: TailKey, selection: Selection, ids: Sequence[str] = (), *, more: bool = False
    ) -> Backfill:
        """Start a backfill.

        Args:
            key: the tail.
            selection: the documents.
            ids: the first ids, if the source does not list them.
            more: whether more ids follow with `add_ids`.

        Raises:
            ConflictError: too many backfills of the tail wait.
            OSError: it can't be written.
        """
        known = self._store.list(key)
        if sum(each.state not in ENDED for each in known) >= MAX_WAITING:
            raise ConflictError(f"{MAX_WAITING} backfills of {key} wait or run, the most that are allowed")
        for each in [each for each in known if each.state in ENDED][: -MAX_ENDED or None]:
            self._store.remove(each)
        backfill = self._store.put(
            Backfill(
                id=secrets.token_hex(4),
                pillow=key.pillow,
                source=key.source,
                selection=selection,
                state=BackfillState.WAITING if selection.is_listed else BackfillState.RECEIVING,
                created_at=self._clock.wall(),
            )
        )
        if selection.is_listed:
            self._wake(key)
            return backfill
        return self.add_ids(backfill.id, ids, last=not more)

    def add_ids(self, id: str, ids: Sequence[str], *, last: bool) -> Backfill:
        """Add ids to a backfill. It begins once all ids were added.

        Raises:
            NotFoundError: the backfill does not exist.
            ConflictError: it has all its ids.
            OSError: they can't be written.
        """
        state = BackfillState.WAITING if last else BackfillState.RECEIVING

        def add(each: Backfill) -> Backfill:
            if each.state is not BackfillState.RECEIVING:
                raise ConflictError(f"the backfill {id} takes no more ids: it is {each.state}")
            if ids:
                self._store.put_ids(each, len(each.ranges) + 1, ids)
            return msgspec.structs.replace(each.add_range(len(ids), after=None, listed=last), state=state)

        backfill = self._store.change(id, add)
        if last:
            self._wake(backfill.key)
        return backfill

    def retry(self, id: str, number: int) -> Backfill:
        """Send a range of an ended backfill again.

        Raises:
            NotFoundError: the backfill or the range does not exist.
            ConflictError: it is unfinished, or was cancelled.
            OSError: it can't be written.
        """

        def try_again(each: Backfill) -> Backfill:
            if each.state not in (BackfillState.DONE, BackfillState.FAILED):
                raise ConflictError(f"the backfill {id} is {each.state}")
            if not 1 <= number <= len(each.ranges):
                raise NotFoundError(f"the backfill {id} has {len(each.ranges)} ranges")
            return each.try_again(number)

        backfill = self._store.change(id, try_again)
        self._wake(backfill.key)
        return backfill

    def cancel(self, id: str) -> Backfill:
        """Cancel a backfill. Documents already sent are not undone.

        Raises:
            NotFoundError: the backfill does not exist.
            ConflictError: it has ended.
            OSError: it can't be written.
        """

        def cancel(each: Backfill) -> Backfill:
            if each.state in ENDED:
                raise ConflictError(f"the backfill {id} has ended: it is {each.state}")
            return each.stop(BackfillState.CANCELLED, self._clock.wall())

        return self._store.change(id, cancel)

    def get(self, id: str) -> Backfill:
        """Return a backfill.

        Raises:
            NotFoundError: the backfill does not exist.
        """
        backfill = self._store.get(id)
        if backfill is None:
            raise NotFoundError(f"there is no backfill {id}")
        return backfill

    def list(self, key: TailKey | None = None) -> Sequence[Backfill]:
        """Return the backfills of a tail, or all, oldest first."""
        return self._store.list(key)

    def measure(self, key: TailKey) -> dict[str, Any] | None:
        """Return the progress of a tail's running or next backfill; None if it has neither."""
        current = next((each for each in self.list(key) if each.state not in ENDED), None)
        return None if current is None else self._measure(current)

    def _measure(self, backfill: Backfill) -> dict[str, Any]:
        carrier = self._carriers.get(backfill.id)
        done = backfill.count(RangeState.DONE) + (carrier.sent if carrier else 0)
        failed = backfill.count(RangeState.FAILED)
        per_second = carrier.rate.per_second if carrier else 0.0
        left = backfill.documents - done - failed if backfill.listed else None
        interrupted = backfill.state is BackfillState.RUNNING and carrier is None
        return {
            "id": backfill.id,
            "state": str(BackfillState.WAITING if interrupted else backfill.state),
            "documents": backfill.documents if backfill.listed else None,
            "done": done,
            "failed": failed,
            "per_second": per_second,
            "seconds_to_go": left / per_second if left is not None and per_second else None,
        }

    def to_json(self, backfill: Backfill) -> dict[str, Any]:
        """Return a backfill with its progress, as JSON values."""
        return self._measure(backfill) | {
            "key": str(backfill.key),
            "reason": backfill.reason,
            "ranges": len(backfill.ranges),
            "failed_ranges": [
                {"number": number, "documents": each.documents, "reason": each.reason}
                for number, each in enumerate(backfill.ranges, 1)
                if each.state is RangeState.FAILED
            ][:MAX_NAMED],
            "created_at": backfill.created_at,
            "ended_at": backfill.ended_at,
        }

    # --- what runs them

    def serve(self, key: TailKey, source: BackfillSource, sender: Sender) -> None:
        """Run the backfills of a tail, for as long as its run lasts.

        Raises:
            FatalError: the pillow's pipeline can't continue.
            StoppedError: the pillow stops.
        """
        news = self._news.setdefault(key, Event())
        while True:
            news.clear()
            try:
                self.run_all(key, source, sender)
            except (OSError, StoreError) as error:
                _log.error("backfill.not_kept", pillow=str(key), reason=str(error))
                sender.waiter.wait(_DISK_SECONDS)
            else:
                news.wait()

    def take_over(self, run: Callable[[TailKey], None], keys: Collection[TailKey]) -> None:
        """Run all backfills in this process from now on, and go on with those that wait or ran before.

        Args:
            run: runs the backfills of a tail.
            keys: the tails that are configured.
        """
        self.run_here = run
        for key in self.list_ready():
            if key in keys:
                self._wake(key)

    def list_ready(self) -> Sequence[TailKey]:
        """Return the tails with waiting or running backfills."""
        return list({each.key: None for each in self._store.list() if each.state in READY})

    def run_all(
        self,
        key: TailKey,
        source: BackfillSource,
        sender: Sender,
        *,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run the waiting backfills of a tail, one after the other.

        Args:
            key: the tail.
            source: of the tail.
            sender: of its run.
            is_over: returns whether to end, and leave the other ranges for later; called after each range.

        Raises:
            OSError, StoreError: a file can't be written or read.
            FatalError, StoppedError: as `serve`.
        """
        while (backfill := self._find_next(key)) is not None:
            if backfill.state is BackfillState.WAITING:
                _log.info("backfill.running", pillow=str(key), backfill=backfill.id)
            carrier = Carrier(backfill.id, self._store, sender, source, self._clock, is_over=is_over)
            self._carriers[backfill.id] = carrier
            try:
                carrier.run()
            finally:
                del self._carriers[backfill.id]
            ended = self.get(backfill.id)
            if ended.state not in ENDED:
                return
            counts = {"documents": ended.documents, "done": ended.count(RangeState.DONE)}
            _log.info("backfill.ended", pillow=str(key), backfill=ended.id, state=str(ended.state), **counts)

    def close(self) -> None:
        """Stop the backfills that run in this process; the next daemon continues them."""
        gevent.killall(list(self._here.values()))

    def _find_next(self, key: TailKey) -> Backfill | None:
        return next((each for each in self.list(key) if each.state in READY), None)

    def _wake(self, key: TailKey) -> None:
        if self.run_here is None:
            self._news.setdefault(key, Event()).set()
        elif key not in self._here or self._here[key].dead:
            self._here[key] = gevent.spawn(self._run_here, key, self.run_here)

    def _run_here(self, key: TailKey, run: Callable[[TailKey], None]) -> None:
        try:
            seen: set[str] = set()
            while (backfill := self._find_next(key)) is not None and backfill.id not in seen:
                seen.add(backfill.id)
                run(key)  # while it ends, another one may have come
        except (PillowError, OSError, StoreError) as error:
            self._fail_all(key, f"the pillow can't run: {error}")
        except Exception:
            self._fail_all(key, "pillowd has a defect; see the log")
            raise

    def _fail_all(self, key: TailKey, reason: str) -> None:
        while (backfill := self._find_next(key)) is not None:
            with suppress(OSError, StoreError):
                self._store.change(backfill.id, lambda each: each.fail(reason, self._clock.wall()))
                continue
            return


def make_selection(body: dict[str, Any]) -> Selection:
    """Return the documents that a request selects.

    Raises:
        InvalidRequestError: it selects none, or selects in several ways.
    """
    given = [name for name in ("ids", "prefix", "selector") if name in body]
    if len(given) != 1:
        raise InvalidRequestError("exactly one of `ids`, `prefix` and `selector` must be given")
    return Selection(prefix=body.get("prefix"), selector=body.get("selector"))
