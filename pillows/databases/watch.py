"""Find out which databases of a server have changes: by `_db_updates` at once, by sweeps for certain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from gevent.event import Event
from gevent.pool import Pool

from checkpoints import Seq
from checkpoints.files.blocking import call_safely
from pillows.clock import Clock
from pillows.couch.client import CouchClient
from pillows.databases.listing import DatabaseList, Description, NotAdminError, halve
from pillows.databases.names import DatabaseNames
from pillows.databases.turn_queue import DatabaseState, TurnQueue
from pillows.databases.updates_reader import NoUpdatesError, Update, UpdatesReader
from pillows.errors import AccessError, FatalError, RetryableError, StoppedError
from pillows.feed.options import SourceOptions
from pillows.retry.backoff import Backoff

#: Requests of a sweep in a second: each opens the shards of a hundred databases, and must not evict the busy
#: ones (`max_dbs_open` is 500).
SWEEP_REQUESTS_PER_SECOND = 5.0

#: Requests of a sweep at once: a server that takes long for each is not to make it twice as long.
SWEEP_REQUESTS = 2

#: Longest wait before another look for a stop, or for a reason to sweep.
_TICK_SECONDS = 5.0


class ServerWatch:
    """Marks the databases of one server that may have changes.

    Args:
        couch: the server.
        source: the intervals.
        names: which databases.
        queue: where they are marked.
        on_mark: called after some were marked.
        warn: reports an event and its details to the operator.
        since: a position in `_db_updates` of an earlier run; None for none.

    Attributes:
        swept: set once a sweep has seen all databases.
        trouble: why the server can't be asked at present; empty if it can.
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
        self._source = source
        self._names = names
        self._queue = queue
        self._on_mark = on_mark
        self._warn = warn
        self._clock: Clock = couch.clock
        self._reader = UpdatesReader(couch, since)
        self._list = DatabaseList(couch, self._pace)
        self._stop = Event()
        self._begun = Event()
        self._wanted = Event()
        self._has_updates = True
        self._warned: set[str] = set()
        self._next_request_at = 0.0

    @property
    def since(self) -> Seq | None:
        """The position in `_db_updates` after the last update that was marked; None if it is not known."""
        return self._reader.since

    def run_updates(self, stop: Event) -> None:
        """Read `_db_updates` until a stop."""
        backoff = Backoff()
        while not stop.is_set():
            wait_seconds = self._source.sweep
            try:
                self._reader.begin()
                self._has_updates = True
                self._begun.set()
                self._reader.read(self._take)
                wait_seconds = backoff.next()
            except (NoUpdatesError, AccessError) as error:
                self._has_updates = False
                self._warn_once("source.no_updates", error)
            except RetryableError as error:
                wait_seconds = backoff.after(error)
            self._begun.set()
            self._wanted.set()  # what happened meanwhile was not reported
            self._clock.wait(stop, wait_seconds)

    def run_sweeps(self, stop: Event) -> None:
        """Sweep at the start, after each interruption of `_db_updates`, and at an interval."""
        self._stop = stop
        stop.rawlink(lambda _: self._wanted.set())
        while not stop.is_set() and not self._begun.is_set():
            self._clock.wait(self._begun, _TICK_SECONDS)
        backoff = Backoff()
        while not stop.is_set():
            self._wanted.clear()
            try:
                self.sweep()
            except (RetryableError, AccessError) as error:
                self.trouble = str(error)
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
            backoff.reset()
            self.swept.set()
            self._on_mark()
            self._wait_for_next(stop)

    def sweep(self) -> None:
        """Look at every database, and mark those that may have changes.

        Raises:
            RetryableError: the server is away or busy; some were not looked at.
            AccessError: it does not let us in.
            StoppedError: a stop was requested.
        """
        found: set[str] = set()
        try:
            self._look_at_all(found)
        except NotAdminError as error:
            self._warn_once("source.not_listed", error)
            known = sorted({*self._names.written_out, *self._queue})
            for page in self._list.describe_some(known):
                self._see(page, found)
        self._mark_missing(found)

    def _look_at_all(self, found: set[str]) -> None:
        pool = Pool(SWEEP_REQUESTS)
        looks = [partial(self._look_at, part, found) for part in halve(self._names.ranges, self._queue)]
        try:
            for _, error in pool.imap_unordered(call_safely, looks):
                if error is not None:
                    raise error
        finally:
            pool.kill()

    def _look_at(self, part: tuple[str, str], found: set[str]) -> None:
        for page in self._list.pages(*part):
            self._see(page, found)

    def _see(self, page: Iterable[Description], found: set[str]) -> None:
        now = self._clock.monotonic()
        for each in page:
            if self._names.matches(each.name):
                found.add(each.name)
                self._queue.see(each, now)
        self._on_mark()

    def _mark_missing(self, found: set[str]) -> None:
        """Mark the databases that were not found: their turns will find out that they are deleted."""
        now = self._clock.monotonic()
        missing: Sequence[str] = [
            name
            for name, database in self._queue.items()
            if name not in found and database.state is DatabaseState.PARKED
        ]
        for name in missing:
            self._queue.mark(name, now)

    def _take(self, update: Update) -> None:
        name = update.db_name
        if not self._names.matches(name):
            return
        self._queue.mark(name, self._clock.monotonic())
        if update.type != "updated" and (database := self._queue.get(name)) is not None:
            database.identity = ""  # it may be another database of that name now
        self._on_mark()

    def _wait_for_next(self, stop: Event) -> None:
        """Wait until the next sweep is due. An interruption of `_db_updates` makes it due sooner."""
        now = self._clock.monotonic()
        earliest = now + self._source.poll
        latest = now + (self._source.sweep if self._has_updates else self._source.poll)
        while not stop.is_set() and (now := self._clock.monotonic()) < latest:
            if self._wanted.is_set() or not self._has_updates:
                latest = min(latest, earliest)
                self._clock.wait(stop, max(0.0, min(latest - now, _TICK_SECONDS)))
            else:
                self._clock.wait(self._wanted, min(latest - now, _TICK_SECONDS))

    def _pace(self, weight: float) -> None:
        """Wait before a request of a sweep.

        Raises:
            StoppedError: a stop was requested.
        """
        now = self._clock.monotonic()
        wait_seconds = self._next_request_at - now
        self._next_request_at = max(now, self._next_request_at) + weight / SWEEP_REQUESTS_PER_SECOND
        if (wait_seconds > 0 and self._clock.wait(self._stop, wait_seconds)) or self._stop.is_set():
            raise StoppedError

    def _warn_once(self, event: str, error: FatalError) -> None:
        if event not in self._warned:
            self._warned.add(event)
            every = f"{self._source.poll:g} s"
            self._warn(event, {"error": str(error), "instead": f"all databases are looked at every {every}"})
