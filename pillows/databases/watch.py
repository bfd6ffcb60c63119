"""Find the databases that have changes: `_db_updates` is fast but may miss some; sweeps find all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from gevent.event import Event
from gevent.pool import Pool
from msgspec import Struct

from checkpoints import Seq
from checkpoints.files.blocking import call_safely
from pillows.clock import Clock
from pillows.couch.client import CouchClient
from pillows.databases.listing import PAGE, DatabaseList, Description, NotListedError, Way, halve
from pillows.databases.names import DatabaseNames
from pillows.databases.turn_queue import DatabaseState, TurnQueue
from pillows.databases.updates_reader import NoUpdatesError, Update, UpdatesReader
from pillows.errors import AccessError, FatalError, RetryableError, StoppedError
from pillows.feed.options import SourceOptions
from pillows.retry.backoff import Backoff

#: Requests of a sweep per second. Each opens the shards of a hundred databases, which must not evict those in
#: use (`max_dbs_open` is 500).
SWEEP_REQUESTS_PER_SECOND = 5.0

#: Concurrent requests of a sweep, so that a sweep of a slow server takes half as long.
SWEEP_REQUESTS = 2

#: Interval at which a stop and reasons for a sweep are checked.
_TICK_SECONDS = 5.0


#: How often a sweep of a first load looks whether few databases wait for their turns.
_LOOK_SECONDS = 0.02

#: Failures of `_db_updates` in a row, without a byte received, after which the feed counts as missing.
FAILURES_IN_A_ROW = 3

#: Longest wait of the first sweep for the position in `_db_updates`.
BEGIN_SECONDS = 10.0

#: Shortest pause between two sweeps of very many databases.
PAUSE_SECONDS = 1.0

#: The features that a server may lack.
UPDATES, LISTING = "updates", "listing"


class Limit(Struct, frozen=True):
    """A feature that a server lacks.

    Attributes:
        error: names the feature and the remedy.
        instead: how pillowd works without it.
    """

    error: FatalError
    instead: str


class ServerWatch:
    """Marks the databases of one server that may have changes.

    Args:
        couch: the server.
        source: the intervals.
        names: which databases.
        queue: marks them.
        on_mark: called after some were marked.
        warn: logs a warning for the operator.
        since: a position in `_db_updates` of an earlier run; None for none.

    Attributes:
        swept: set once a sweep has seen all databases.
        trouble: why the server can't be asked now; "" if it can.
        behind_at: monotonic seconds since when changes may be missed: from the start to the end of the first
            sweep, and while the server can't be asked. None at other times.
    """

    def __init__(
        self,
        couch: CouchClient,
        source: SourceOptions,
        names: DatabaseNames,
        queue: TurnQueue,
        *,
        on_mark: Callable[[], None],
        warn: Callable[[str, Mapping[str, object]], None],
        since: Seq | None = None,
    ) -> None:
        self.swept = Event()
        self.trouble = ""
        self.behind_at: float | None = couch.clock.monotonic()
        self._source = source
        self._names = names
        self._queue = queue
        self._on_mark = on_mark
        self._warn = warn
        self._couch = couch
        self._clock: Clock = couch.clock
        self._reader = UpdatesReader(couch, since)
        self._stop = Event()
        self._begun = Event()
        self._wanted = Event()
        self._has_updates = True
        self._limits: dict[str, Limit] = {}
        self._warned: set[str] = set()
        self._next_request_at = 0.0
        self._is_first_load = False
        self._seen_at: float | None = None

    @property
    def since(self) -> Seq | None:
        """The position in `_db_updates` after the last processed update; None if unknown."""
        return self._reader.since

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds when the server last sent anything; None before that."""
        known = [at for at in (self._seen_at, self._reader.activity.at) if at is not None]
        return max(known, default=None)

    def run_updates(self, stop: Event) -> None:
        """Read `_db_updates` until a stop."""
        backoff = Backoff()
        while not stop.is_set():
            heard_at = self._reader.activity.at
            failure = self._read_updates()
            if self._reader.activity.at != heard_at:
                backoff.reset()
            if failure is None:
                wait_seconds = backoff.next()
            elif isinstance(failure, RetryableError):
                wait_seconds = backoff.after(failure)
            else:
                wait_seconds = self._source.sweep
            if isinstance(failure, FatalError) or backoff.attempts >= FAILURES_IN_A_ROW:
                self._has_updates = False
                self._limits[UPDATES] = _limit_updates(failure, self._source.poll)
            self._begun.set()
            self._wanted.set()  # what happened meanwhile was not reported
            self._clock.wait(stop, wait_seconds)

    def run_sweeps(self, stop: Event) -> None:
        """Sweep at the start, after each interruption of `_db_updates`, and at regular intervals."""
        self._stop = stop
        stop.rawlink(lambda _: self._wanted.set())
        self._await_updates(stop)
        backoff = Backoff()
        while not stop.is_set():
            self._wanted.clear()
            began_at = self._clock.monotonic()
            try:
                self.sweep()
            except (RetryableError, AccessError, NotListedError) as error:
                self.trouble = str(error)
                if self.behind_at is None:
                    self.behind_at = began_at
                self._on_mark()
                self._clock.wait(
                    stop, backoff.after(error) if isinstance(error, RetryableError) else self._source.poll
                )
                continue
            except StoppedError:
                return
            if self.trouble:
                self.trouble = ""
                self._queue.end_waits(self._clock.monotonic())
            self.behind_at = None
            backoff.reset()
            self._warn_of_limits()
            self.swept.set()
            self._on_mark()
            self._wait_for_next(began_at, stop)

    def sweep(self) -> None:
        """Check every database, and mark those that may have changes.

        Raises:
            RetryableError: the server is unreachable or busy; some databases were not checked.
            AccessError: the server denies access.
            NotListedError: the server does not list its databases for our user, and none is configured by
                name.
            StoppedError: a stop was requested.
        """
        found: set[str] = set()
        self._is_first_load = not len(self._queue)
        # A new one each time: a proxy may refuse requests only while the server starts.
        listed = DatabaseList(self._couch, self._pace, self._names.matches)
        self._limits.pop(LISTING, None)
        try:
            self._look_at_all(listed, found)
            limit: FatalError | None = listed.limit
        except NotListedError as error:
            known = sorted({*self._names.written_out, *self._queue})
            if not known:
                raise
            for page in listed.describe_some(known):
                self._see(page, found)
            limit = error
        if limit is not None:
            self._limits[LISTING] = _limit_listing(limit, listed.way)
        self._mark_missing(found)

    def _look_at_all(self, listed: DatabaseList, found: set[str]) -> None:
        pool = Pool(SWEEP_REQUESTS)
        parts = halve(self._names.ranges, self._queue)
        looks = [partial(self._look_at, listed, part, found) for part in parts]
        try:
            for _, error in pool.imap_unordered(call_safely, looks):
                if error is not None:
                    raise error
        finally:
            pool.kill()

    def _look_at(self, listed: DatabaseList, part: tuple[str, str], found: set[str]) -> None:
        for page in listed.pages(*part):
            self._see(page, found)

    def _read_updates(self) -> FatalError | RetryableError | None:
        """Read `_db_updates` until it ends; return why it failed, if it did."""
        try:
            if self._reader.since is None:
                self._reader.begin()
                self._note_updates()
                self._wanted.set()  # a sweep that did not wait for the position proves nothing of later
            self._begun.set()
            self._reader.read(self._take)
        except (NoUpdatesError, AccessError, RetryableError) as error:
            return error
        return None

    def _note_updates(self) -> None:
        self._has_updates = True
        self._limits.pop(UPDATES, None)

    def _await_updates(self, stop: Event) -> None:
        """Wait until the position in `_db_updates` is known, so that no change after the sweep is missed."""
        until = self._clock.monotonic() + BEGIN_SECONDS
        while not stop.is_set() and not self._begun.is_set():
            left_seconds = until - self._clock.monotonic()
            if left_seconds <= 0:
                return  # once it answers, another sweep follows
            self._clock.wait(self._begun, min(left_seconds, _TICK_SECONDS))

    def _see(self, page: Iterable[Description], found: set[str]) -> None:
        now = self._seen_at = self._clock.monotonic()
        for each in page:
            if self._names.matches(each.name):
                found.add(each.name)
                self._queue.see(each, now)
        self._on_mark()

    def _mark_missing(self, found: set[str]) -> None:
        """Mark databases that the sweep did not find. Their turns confirm that they are deleted."""
        now = self._clock.monotonic()
        missing: Sequence[str] = [
            name
            for name, database in self._queue.items()
            if name not in found and database.state is DatabaseState.PARKED
        ]
        for name in missing:
            self._queue.mark(name, now)

    def _take(self, update: Update) -> None:
        self._note_updates()
        name = update.db_name
        if not self._names.matches(name):
            return
        self._queue.mark(name, self._clock.monotonic())
        if update.type != "updated" and (database := self._queue.get(name)) is not None:
            database.identity = ""  # it may be another database of that name now
            database.was_deleted |= update.type == "deleted"
        self._on_mark()

    def _wait_for_next(self, began_at: float, stop: Event) -> None:
        """Wait until the next sweep is due. An interruption of `_db_updates` makes it due sooner.

        Args:
            began_at: monotonic seconds when the last sweep began, so that a change which it just missed waits
                at most one interval.
            stop: ends the wait.
        """
        earliest = max(began_at + self._source.poll, self._clock.monotonic() + PAUSE_SECONDS)
        latest = max(began_at + self._source.sweep, earliest) if self._has_updates else earliest
        while not stop.is_set() and (now := self._clock.monotonic()) < latest:
            if self._wanted.is_set() or not self._has_updates:
                latest = min(latest, earliest)
                self._clock.wait(stop, max(0.0, min(latest - now, _TICK_SECONDS)))
            else:
                self._clock.wait(self._wanted, min(latest - now, _TICK_SECONDS))

    def _pace(self, weight: float) -> None:
        """Wait before a request of a sweep, to limit the rate.

        In a first load, a page of databases is asked for as soon as few wait: their turns follow anyway.

        Raises:
            StoppedError: a stop was requested.
        """
        until = self._next_request_at
        while not self._stop.is_set() and (left_seconds := until - self._clock.monotonic()) > 0:
            if self._is_first_load and weight >= 1.0 and self._queue.waiting <= PAGE:
                break
            self._clock.wait(self._stop, min(left_seconds, _LOOK_SECONDS))
            if self._next_request_at != until:  # somebody else's request came first
                until = self._next_request_at
        self._next_request_at = self._clock.monotonic() + weight / SWEEP_REQUESTS_PER_SECOND
        if self._stop.is_set():
            raise StoppedError

    def _warn_of_limits(self) -> None:
        """Warn once of each feature that the server lacks."""
        new = [name for name in self._limits if name not in self._warned]
        if new:
            self._warned.update(new)
            limits = [self._limits[name] for name in new]
            details = {
                "error": "; ".join(str(each.error) for each in limits),
                "instead": "; ".join(each.instead for each in limits),
            }
            self._warn("source.limited", details)


def _limit_updates(failure: FatalError | RetryableError | None, poll_seconds: float) -> Limit:
    error = failure
    if not isinstance(error, FatalError):
        error = FatalError(
            f"`_db_updates` fails again and again: {failure or 'it ends at once'}",
            remedy="look at the server's log, and at the proxies in between",
        )
    return Limit(error, f"all databases are looked at every {poll_seconds:g} s")


def _limit_listing(error: FatalError, way: Way) -> Limit:
    if isinstance(error, NotListedError):
        return Limit(error, "only the databases that are known by name are looked at")
    if way is Way.NAMED_TOGETHER:
        return Limit(error, "they are listed by `_all_dbs` and described by `POST /_dbs_info`")
    return Limit(error, "each database is asked by itself, at most 50 in a second")
